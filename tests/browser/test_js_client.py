"""The JavaScript client in a real browser against a real server, without the live page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.serving import Server

pytestmark = pytest.mark.real


def test_a_slow_loop_pauses_its_subscription_and_reads_everything_once(page: Page, server: Server) -> None:
    for _ in range(20):
        server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(100)))
    page.goto(server.url)
    read = page.evaluate(
        """async () => {
            const { SignalClient } = await import("/client.js");
            const client = new SignalClient();
            const sub = client.subscribe({ types: "t.>", since: "earliest", buffer: 200 });
            const offsets = [], states = new Set();
            sub.on("state", ({ state }) => states.add(state));
            for await (const { kind, offset } of sub) {
                offsets.push(kind === "signal" ? offset : kind);
                if (offsets.length % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
                if (offsets.length === 2000) break;
            }
            client.close();
            return { offsets, paused: states.has("paused") };
        }"""
    )
    assert read == {"offsets": list(range(1, 2_001)), "paused": True}


def test_publications_resolve_in_order_and_repeat_as_duplicates(page: Page, server: Server) -> None:
    page.goto(server.url)
    told = page.evaluate(
        """async () => {
            const { SignalClient } = await import("/client.js");
            const client = new SignalClient();
            const publish = (data, id) => client.publish({ type: "t.a", entity: "e", data, id });
            const first = await Promise.all(Array.from({ length: 40 }, (_, n) => publish(n, `k${n}`)));
            const again = await publish(0, "k0");
            const wrong = await client.publish({ type: "t..a", entity: "e" }).catch(({ message }) => message);
            client.close();
            return { first: first.map(({ offset }) => offset), again: [again.offset, again.dup], wrong };
        }"""
    )
    assert (told["first"], told["again"]) == (list(range(1, 41)), [1, True])
    assert "t..a" in told["wrong"]
