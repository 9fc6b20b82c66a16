"""The analytics on the console's page, of a service that has a past."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS, Told
from tests.browser.past import write_past
from tests.browser.serving import Server
from tests.browser.test_console import open_console

pytestmark = pytest.mark.real
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def past(tmp_path: Path) -> None:
    write_past(tmp_path / "data")


def test_each_span_of_a_past_has_its_charts_and_shares(past: None, page: Page, server: Server, told: Told) -> None:
    open_console(page, server, "analytics")
    for span, step in (("Hour", "a minute"), ("Day", "10 minutes"), ("Week", "an hour"), ("All", "a day")):
        page.get_by_role("link", name=span, exact=True).click()
        expect(page.get_by_role("group")).to_contain_text(f"each point is {step};")
        expect(page.locator(".chart canvas")).to_have_count(5)
        expect(page.locator(".figure", has_text="Opened").locator("dd")).not_to_have_text("0")
    expect(page.get_by_role("region", name="Close codes").locator("tr").first).to_contain_text("1000")
    expect(page.get_by_role("region", name="SDKs").locator("tr").first).to_contain_text("heliograph-js")
    page.locator(".chart.hero .u-over").hover()
    expect(page.locator(".chart.hero .readout .unit").first).to_have_text(re.compile(r"\d+ \w+"))  # the day pointed at
    assert (told.elsewhere, told.complaints) == ([], [])


def test_the_figures_are_downloaded_as_csv(past: None, page: Page, server: Server) -> None:
    open_console(page, server, "analytics?span=week")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    assert download.value.suggested_filename == "heliograph-week.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("from,connections,opened,closed,")
    assert len(lines) - 1 in {7 * 24 - 1, 7 * 24}, "an hour that has only just begun has nothing to show"


def test_a_service_without_a_past_says_when_its_first_figures_come(page: Page, server: Server) -> None:
    open_console(page, server, "analytics")
    expect(page.locator(".empty")).to_contain_text("Nothing has been counted yet")
    reader = page.context.new_page()
    reader.goto(server.url)
    expect(page.locator(".figure", has_text="Opened").locator("dd")).to_have_text("1")
