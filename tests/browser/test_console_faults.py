"""Faults on the console's page, in a server that was started for them: what fails, what it did, and that it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.serving import Server
from tests.browser.test_console import AXE, open_console

pytestmark = pytest.mark.real
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data", "--faults")
    running.start()
    yield running
    running.kill()


def reader_of(page: Page, server: Server) -> Page:
    """A page that follows the service."""
    reader = page.context.new_page()
    reader.goto(server.url)
    expect(reader.locator("body")).to_contain_text("Connected")
    return reader


def test_dropped_clients_come_back_and_what_was_lost_is_shown(page: Page, faulty: Server) -> None:
    reader_of(page, faulty)
    open_console(page, faulty, "faults")
    page.get_by_role("form", name="Drop sockets").get_by_label("Share").fill("100")
    page.get_by_role("button", name="Drop sockets").click()
    running = page.get_by_role("region", name="The fault that runs")
    expect(running).to_contain_text("share 100 %")
    expect(running.locator("div", has_text="Connections lost").locator("dd")).to_have_text("1")
    expect(running.locator("div", has_text="Subscriptions recovered").locator("dd")).to_have_text("1")
    expect(page.get_by_role("button", name="Drop sockets")).to_be_disabled()
    running.get_by_role("button", name="End it").click()
    row = page.get_by_role("region", name="The last faults").locator("tbody tr")
    expect(row).to_contain_text("drop sockets")
    expect(row.locator("td").nth(6)).to_have_text("0")
    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").last).to_contain_text("inject fault")


def test_one_session_may_be_named_instead_of_a_share(page: Page, faulty: Server) -> None:
    reader_of(page, faulty)
    reader_of(page, faulty)
    open_console(page, faulty, "connections")
    expect(page.get_by_role("status")).to_have_text("2 connections")
    page.locator(".row").first.click()
    session = page.locator(".facts code").inner_text()
    page.get_by_role("link", name="Faults").click()
    form = page.get_by_role("form", name="Drop sockets")
    form.get_by_label("Or one session").fill("nobody")
    form.get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("no connection of 'nobody' to main")
    form.get_by_label("Or one session").fill(session)
    form.get_by_role("button").click()
    running = page.get_by_role("region", name="The fault that runs")
    expect(running).to_contain_text(f"session {session}, stream main")
    expect(running.locator("div", has_text="Connections lost").locator("dd")).to_have_text("1")


def test_commits_that_wait_hold_a_publication_back(page: Page, faulty: Server) -> None:
    open_console(page, faulty, "faults")
    form = page.get_by_role("form", name="Delay commits")
    form.get_by_label("Each by").fill("3000")
    form.get_by_role("button").click()
    expect(page.get_by_role("region", name="The fault that runs")).to_contain_text("It ends in")
    begun = page.evaluate("performance.now()")
    faulty.post({"type": "t.a", "entity": "e", "data": 1})
    assert page.evaluate("performance.now()") - begun > 1_000


def test_a_killed_process_is_known_to_have_been_killed_once_it_is_back(page: Page, faulty: Server) -> None:
    reader_of(page, faulty)
    open_console(page, faulty, "faults")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Kill process").click()
    expect(page.get_by_role("region", name="The fault that runs")).to_have_count(0)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Kill process").click()
    expect(page.locator(".lost")).to_contain_text("No connection to the server")
    faulty.kill()
    faulty.start()
    running = page.get_by_role("region", name="The fault that runs")
    expect(running.locator("div", has_text="Connections lost").locator("dd")).to_have_text("1")
    expect(running.locator("div", has_text="Subscriptions recovered").locator("dd")).to_have_text("1")
    expect(page.locator(".lost")).to_have_count(0)


def test_a_server_without_the_option_has_no_such_page(page: Page, server: Server) -> None:
    open_console(page, server)
    expect(page.get_by_role("link", name="Audit")).to_be_visible()
    expect(page.get_by_role("link", name="Faults")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_need_not_scroll_sideways(page: Page, faulty: Server, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make js` installs it")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 360, "height": 740})
    open_console(page, faulty, "faults")
    page.get_by_role("button", name="Skew clock").click()
    expect(page.get_by_role("region", name="The fault that runs")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))")
    assert found == []
