"""The live page in a real browser, against a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS, Told
from tests.browser.serving import Server

pytestmark = pytest.mark.real

CONNECTED = "#state[data-state=connected]"


def signal(n: int, kind: str = "price.tick", entity: str = "btc-usd", data: Any = None) -> dict[str, Any]:
    return {"type": kind, "entity": entity, "data": {"n": n} if data is None else data}


def batch(first: int) -> list[dict[str, Any]]:
    return [signal(n) for n in range(first, first + 50)]


def offsets(page: Page) -> list[int]:
    """The offsets of the rows from top to bottom."""
    found: list[int] = page.locator("li[data-offset]").evaluate_all(
        "rows => rows.map((row) => Number(row.dataset.offset))"
    )
    return found


def open_live(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.wait_for_selector(CONNECTED)
    expect(page.locator("#state-text")).to_have_text("Connected")


def test_a_row_appears_within_a_second_of_a_post(page: Page, server: Server, told: Told) -> None:
    open_live(page, server)
    expect(page.locator("#empty-text")).to_be_visible()
    # The page's own clock sees both the answer of the POST and the row, so no time of the test is in between.
    took_ms = page.evaluate(
        """async (signal) => {
            const list = document.querySelector("#signals");
            const row = new Promise((resolve) => {
                new MutationObserver(() => resolve(performance.now())).observe(list, { childList: true });
            });
            const began = performance.now();
            await fetch("/v1/signals", { method: "POST", body: JSON.stringify(signal) });
            return (await row) - began;
        }""",
        signal(1, "alert.high"),
    )
    assert took_ms < 1_000
    row = page.locator("li[data-offset]")
    expect(row).to_contain_text("alert.high")
    expect(row).to_contain_text("btc-usd")
    assert (told.elsewhere, told.complaints) == ([], [])


def test_after_kill_and_restart_the_page_goes_on_without_reload_loss_or_repetition(
    page: Page, server: Server, told: Told
) -> None:
    open_live(page, server)
    page.evaluate("window.unloaded = false")
    published = server.post(*batch(0))
    server.kill()
    page.wait_for_selector("#state[data-state=reconnecting]")
    server.start()
    published += server.post(*batch(50))  # while the page is still on its way back, or just there
    page.wait_for_selector(CONNECTED)
    published += server.post(*batch(100))

    assert len(set(published)) == 150
    expect(page.locator("li[data-offset]")).to_have_count(150, timeout=PATIENCE_MS)
    assert offsets(page) == sorted(published, reverse=True)
    expect(page.locator("#gaps")).to_have_text("0")
    assert page.evaluate("window.unloaded") is False
    assert (told.elsewhere, told.complaints) == ([], [])


def test_the_filter_shows_only_what_matches_and_is_kept_in_the_address(page: Page, server: Server, told: Told) -> None:
    server.post(signal(1), signal(2, "alert.high"), signal(3, entity="eth-usd"))
    open_live(page, server)
    expect(page.locator("li[data-offset]")).to_have_count(3)
    page.fill("#types", "price.>")
    page.fill("#entities", "btc-*")
    page.press("#entities", "Enter")
    expect(page.locator("li[data-offset]")).to_have_count(1)
    server.post(signal(4, "alert.high"), signal(5))
    expect(page.locator("li[data-offset]")).to_have_count(2)
    assert offsets(page) == [5, 1]

    page.reload()
    expect(page.locator("li[data-offset]")).to_have_count(2)
    expect(page.locator("#types")).to_have_value("price.>")
    page.click("#clear")
    expect(page.locator("li[data-offset]")).to_have_count(5)
    assert (told.elsewhere, told.complaints) == ([], [])


def test_a_filter_that_the_server_refuses_says_why_and_can_be_corrected(page: Page, server: Server, told: Told) -> None:
    open_live(page, server)
    page.fill("#types", "price..tick")
    page.press("#types", "Enter")
    expect(page.get_by_role("alert")).to_contain_text("price..tick")
    page.fill("#types", "price.tick")
    page.press("#types", "Enter")
    expect(page.get_by_role("alert")).to_be_hidden()
    server.post(signal(1))
    expect(page.locator("li[data-offset]")).to_have_count(1)
    assert told.complaints == []


def test_pause_holds_the_list_still_and_resume_shows_what_came(page: Page, server: Server) -> None:
    server.post(signal(1))
    open_live(page, server)
    expect(page.locator("li[data-offset]")).to_have_count(1)
    page.keyboard.press("p")
    server.post(signal(2), signal(3))
    expect(page.locator("#pause-text")).to_have_text("Resume (2 new)")
    assert offsets(page) == [1]
    page.keyboard.press("p")
    expect(page.locator("li[data-offset]")).to_have_count(3)
    assert offsets(page) == [3, 2, 1]


def test_a_row_opens_by_keyboard_and_shows_the_whole_signal_as_text(page: Page, server: Server, told: Told) -> None:
    markup = "<img src=x onerror=alert(1)>"
    server.post(signal(1), signal(2, data={"text": markup}))
    open_live(page, server)
    expect(page.locator("li[data-offset]")).to_have_count(2)
    page.locator("li[data-offset='1'] .row").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    detail = page.locator("li[data-offset='2'] .detail")
    shown = json.loads(detail.inner_text())
    assert (shown["offset"], shown["data"]) == (2, {"text": markup})
    assert page.locator("#signals img").count() == 0
    page.keyboard.press("Enter")
    expect(detail).to_have_count(0)
    assert (told.elsewhere, told.complaints) == ([], [])


def test_the_list_is_bounded(page: Page, server: Server) -> None:
    open_live(page, server)
    for first in range(0, 600, 50):
        server.post(*batch(first))
    expect(page.locator("#last")).to_have_text("600")
    expect(page.locator("li[data-offset]")).to_have_count(500)
    assert offsets(page) == list(range(600, 100, -1))


def test_cpu_usage_is_drawn_for_each_core(page: Page, server: Server, told: Told) -> None:
    open_live(page, server)
    expect(page.locator("#cpu")).to_be_hidden()
    server.post(*(signal(0, "host.cpu.usage", f"cpu{core}", {"pct": 10.0 * core}) for core in (1, 10, 2)))
    expect(page.locator("#sparks li")).to_have_count(3)
    assert page.locator("#sparks li > span:first-child").all_inner_texts() == ["cpu1", "cpu2", "cpu10"]
    assert (told.elsewhere, told.complaints) == ([], [])


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Page, server: Server, width: int) -> None:
    server.post(signal(1, "a" * 60 + ".b", "e" * 60, {"text": "wide " * 200}))
    page.set_viewport_size({"width": width, "height": 800})
    open_live(page, server)
    page.click("li[data-offset] .row")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
