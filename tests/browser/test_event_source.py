"""`EventSource` of a real browser, against a real server: it comes back by itself, and gets in by a ticket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.serving import Server

pytestmark = pytest.mark.real

TOKEN = "a-static-token-of-many-characters"
LISTEN = """async ({ query, token }) => {
    if (token) {
        const answer = await fetch("/v1/tickets", { method: "POST", headers: { authorization: `Bearer ${token}` } });
        query += `&ticket=${(await answer.json()).ticket}`;
    }
    window.offsets = [];
    window.opened = 0;
    window.source = new EventSource(`/v1/sse?${query}`);
    source.addEventListener("open", () => { window.opened += 1; });
    source.addEventListener("sig", (event) => {
        for (const signal of JSON.parse(event.data).d) offsets.push(signal.o);
        window.lastId = event.lastEventId;
    });
}"""


def signals(count: int) -> list[dict[str, Any]]:
    return [{"type": "price.tick", "entity": "x", "data": n} for n in range(count)]


def listen(page: Page, server: Server, query: str, token: str = "") -> None:
    page.goto(f"{server.url}/healthz")  # a page of this origin that does nothing by itself
    page.evaluate(LISTEN, {"query": query, "token": token})


def test_after_a_kill_it_comes_back_by_itself_and_misses_and_repeats_nothing(page: Page, server: Server) -> None:
    listen(page, server, "from=earliest")
    told = server.post(*signals(50))
    page.wait_for_function("offsets.length === 50")
    server.kill()
    server.start()
    told += server.post(*signals(50))
    page.wait_for_function("offsets.length >= 100")
    assert page.evaluate("offsets") == told
    assert page.evaluate("opened") == 2


def test_a_ticket_lets_it_in_and_when_it_comes_back_it_needs_another_one(page: Page, locked: Server) -> None:
    listen(page, locked, "from=earliest", TOKEN)
    page.wait_for_function("opened === 1")
    locked.kill()
    locked.start()
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    page.evaluate(LISTEN, {"query": "from=earliest", "token": TOKEN})
    page.wait_for_function("opened === 1")
    page.evaluate("signal => fetch('/v1/signals', signal)", _post())
    page.wait_for_function("offsets.length === 1")


def _post() -> dict[str, Any]:
    return {"method": "POST", "headers": {"authorization": f"Bearer {TOKEN}"}, "body": json.dumps(signals(1))}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    """Asks for a token."""
    config = tmp_path / "heliograph.toml"
    config.write_text(f'[auth]\ntokens = ["{TOKEN}"]\n')
    running = Server(tmp_path / "data", "--config", str(config))
    running.start()
    yield running
    running.kill()
