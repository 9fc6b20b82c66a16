"""The price board in a real browser: full at once, moving, and back after the server was."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import Server
from tests.examples.serving import EXAMPLES

pytestmark = pytest.mark.real
PATIENCE_MS = 20_000


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES / "price-board"), prepend=":")
    running = Server(tmp_path / "data", "board:app")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def page(browser):
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def tick(server: Server, pair: str, price: float) -> None:
    server.post({"type": "price.tick", "entity": pair, "data": {"p": price}})


def test_the_board_shows_the_newest_price_of_every_pair_and_follows(page: Page, server: Server) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    tick(server, "eth-usd", 1)
    tick(server, "eth-usd", 2)
    tick(server, "btc-usd", 5)
    page.goto(f"{server.url}/board")
    expect(page.locator("#prices tr")).to_have_text(["btc-usd5", "eth-usd2"], timeout=PATIENCE_MS)
    expect(page.get_by_role("status")).to_have_text("connected", timeout=PATIENCE_MS)
    tick(server, "eth-usd", 3)
    eth = page.locator("tr[data-entity=eth-usd]")
    expect(eth).to_have_attribute("data-moved", "up", timeout=PATIENCE_MS)
    server.kill()
    expect(page.get_by_role("status")).to_have_text("reconnecting", timeout=PATIENCE_MS)
    server.start()
    tick(server, "eth-usd", 1)
    tick(server, "doge-usd", 7)
    expect(page.locator("#prices tr")).to_have_text(["btc-usd5", "doge-usd7", "eth-usd1"], timeout=PATIENCE_MS)
    expect(eth).to_have_attribute("data-moved", "down", timeout=PATIENCE_MS)
    assert complaints == []
