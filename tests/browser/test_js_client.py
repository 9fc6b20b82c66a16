"""The JavaScript client in a real browser against a real server, without the live page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from tests.browser.relay import Relay
from tests.browser.serving import Server

pytestmark = pytest.mark.real
BUILDS = Path(__file__).parents[2] / "actors" / "client" / "js" / "dist"


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


def test_cursors_outlive_a_reload_of_the_page(page: Page, server: Server) -> None:
    read = """async () => {
        const { SignalClient } = await import("/client.js");
        const client = new SignalClient({ cursorStore: "session" });
        const sub = client.subscribe({ name: "px", types: "t.>", since: "earliest" });
        const offsets = [];
        await new Promise((done) => sub.on("signal", ({ offset }) => offsets.push(offset) === 10 && done()));
        client.close();
        return offsets;
    }"""
    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(10)))
    page.goto(server.url)
    first = page.evaluate(read)
    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(10)))
    page.reload()
    assert (first, page.evaluate(read)) == (list(range(1, 11)), list(range(11, 21)))


def test_a_server_that_is_killed_and_started_again_costs_no_signal_and_repeats_none(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.evaluate(
        """async () => {
            const { SignalClient } = await import("/client.js");
            Object.assign(globalThis, { offsets: [], states: [], client: new SignalClient() });
            client.on("state", ({ state }) => states.push(state));
            const sub = client.subscribe({ types: "t.>", since: "earliest" });
            let arrived;
            globalThis.next = new Promise((resolve) => (arrived = resolve));
            sub.on("signal", ({ offset }) => {
                offsets.push(offset);
                arrived();
                globalThis.next = new Promise((resolve) => (arrived = resolve));
            });
        }"""
    )
    server.post({"type": "t.a", "entity": "e", "data": None})
    page.evaluate("offsets.length > 0 || next")
    for seen in (1, 2):
        server.kill()
        server.start()
        server.post({"type": "t.a", "entity": "e", "data": None})
        page.evaluate(f"offsets.length > {seen} || next")
    assert page.evaluate("offsets") == [1, 2, 3]
    assert "resuming" in page.evaluate("states")


def test_without_a_network_the_page_waits_and_with_one_it_is_back_at_once(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.evaluate(
        """async () => {
            const { SignalClient } = await import("/client.js");
            globalThis.client = new SignalClient();
            const become = (wanted) => new Promise((done) => {
                client.on("state", ({ state }) => state === wanted && done());
            });
            globalThis.offline = become("offline");
            await become("connected");
        }"""
    )
    page.evaluate("dispatchEvent(new Event('offline'))")
    server.kill()
    page.evaluate("offline")
    server.start()
    took_ms = page.evaluate(
        """async () => {
            const connected = new Promise((done) => client.on("state", ({ state }) => state === "connected" && done()));
            const began = performance.now();
            dispatchEvent(new Event("online"));
            await connected;
            return performance.now() - began;
        }"""
    )
    assert took_ms < 1_000


def test_the_script_build_is_the_same_client_in_one_global(page: Page, server: Server) -> None:
    server.post({"type": "t.a", "entity": "e", "data": 1})
    page.goto(server.url)
    script = BUILDS / "heliograph.script.js"
    page.evaluate(f"(() => {{ {script.read_text()} }})()")  # what a <script> does, but past the page's strict policy
    offset = page.evaluate(
        """async () => {
            const client = new Heliograph.SignalClient();
            for await (const { offset } of client.subscribe({ since: "earliest" })) {
                client.close();
                return offset;
            }
        }"""
    )
    assert offset == 1


def test_a_page_that_speaks_messagepack_reads_what_is_new_and_what_is_stored(page: Page, server: Server) -> None:
    def build(route: Route) -> None:
        """A build; a page's import map would say, too, where the client is."""
        text = (BUILDS / Path(route.request.url).name).read_text()
        route.fulfill(body=text.replace('from"heliograph-client"', 'from"/client.js"'), content_type="text/javascript")

    page.route("**/msgpack.js", build)
    page.route("**/history.js", build)
    server.post(*({"type": "t.a", "entity": "e", "data": {"text": "ä€𝄞", "n": n + 0.5}} for n in range(100)))
    frames: list[str | bytes] = []

    def received(frame: str | bytes) -> None:
        frames.append(frame)

    page.on("websocket", lambda ws: ws.on("framereceived", received))
    page.goto(server.url)
    page.wait_for_load_state()
    frames.clear()  # of the page's own client
    told = page.evaluate(
        """async () => {
            const { SignalClient } = await import("/client.js");
            const { msgpack } = await import("/msgpack.js");
            const { history } = await import("/history.js");
            const stored = history({ types: "t.>", page: 40 });
            const paged = [], read = [];
            for await (const { offset, data } of stored) paged.push([offset, data.text, data.n]);
            const client = new SignalClient({ encoding: msgpack });
            const sub = client.subscribe({ types: "t.>", since: "earliest" });
            for await (const { offset, data } of sub) if (read.push([offset, data.text, data.n]) === 100) break;
            const { offset } = await client.publish({ type: "t.b", entity: "e", data: ["ä", 0.1] });
            let last;
            for await (const item of sub) {
                last = [item.offset, item.data];
                break;
            }
            client.close();
            return { paged, read, offset, last };
        }"""
    )
    stored = [[n + 1, "ä€𝄞", n + 0.5] for n in range(100)]
    assert (told["paged"], told["read"]) == (stored, stored)
    assert (told["offset"], told["last"]) == (101, [101, ["ä", 0.1]])
    assert any(isinstance(frame, bytes) for frame in frames)


def test_a_tab_that_slept_for_ten_minutes_without_its_network_catches_up_at_once_when_it_is_shown(
    page: Page, server: Server
) -> None:
    page.clock.install()
    with Relay(server.port) as relay:
        page.goto(relay.url)
        page.evaluate(
            """async () => {
                const { SignalClient } = await import("/client.js");
                Object.assign(globalThis, { offsets: [], states: [], client: new SignalClient() });
                let live;
                const begun = new Promise((resolve) => (live = resolve));
                client.on("state", ({ state }) => states.push([state, offsets.length]));
                const sub = client.subscribe({ types: "t.>" });
                sub.on("state", ({ state }) => state === "live" && live());
                globalThis.caught = new Promise((resolve) => {
                    sub.on("signal", ({ offset }) => offsets.push(offset) === 2000 && resolve());
                });
                await begun;
            }"""
        )
        relay.lose()
        for _ in range(20):
            server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(100)))
        assert page.evaluate("offsets") == []
        page.clock.set_fixed_time(datetime.now(tz=UTC) + timedelta(minutes=10))  # no timer has run meanwhile
        page.evaluate("dispatchEvent(new Event('pageshow')); caught")
        assert page.evaluate("offsets") == list(range(1, 2_001))
        # The dead link was given up and the next one asked for in one step: no backoff, and no beat was waited for.
        assert page.evaluate("states.map(([state]) => state)") == ["connected", "reconnecting", "resuming", "connected"]


def test_a_worker_reads_without_a_document(page: Page, tmp_path: Path) -> None:
    server = Server(tmp_path / "worker", "tests.browser.worker_app:app")
    server.start()
    try:
        server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(3)))
        page.goto(server.url)
        read = page.evaluate(
            """() => new Promise((resolve, reject) => {
                const worker = new Worker("/worker.js", { type: "module" });
                const offsets = [];
                worker.onerror = ({ message }) => reject(new Error(message));
                worker.onmessage = ({ data }) => offsets.push(data) === 3 && resolve(offsets);
            })"""
        )
    finally:
        server.kill()
    assert read == [1, 2, 3]
