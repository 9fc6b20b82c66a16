"""The console in a real browser, against a real server: what it shows, what it does, and who can use it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import PATIENCE_MS, Told
from tests.browser.serving import READY_S, Server

pytestmark = pytest.mark.real

AXE = Path(__file__).parent.parent.parent / "node_modules" / "axe-core" / "axe.min.js"
PAGES = ("overview", "actors", "connections", "subscriptions", "signals", "ingest", "analytics", "audit")
PASSWORD = "a-password-of-many-characters"
expect.set_options(timeout=PATIENCE_MS)


def open_console(page: Page, server: Server, name: str = "overview") -> None:
    page.goto(f"{server.url}/console/#/{name}")
    expect(page.locator("h1")).to_have_text(name.partition("?")[0].capitalize())


def test_the_overview_is_live_and_every_light_has_its_rule(page: Page, server: Server, told: Told) -> None:
    open_console(page, server)
    expect(page.locator(".light")).to_have_count(6)
    assert all(page.locator(".light .rule").all_inner_texts())
    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(40)))
    expect(page.locator(".figure", has_text="Retained").locator("dd")).to_contain_text("40")
    expect(page.locator(".chart canvas")).to_have_count(4)
    assert (told.elsewhere, told.complaints) == ([], [])  # nothing broke the policy either


def test_a_lost_server_is_told_and_the_page_goes_on_without_a_reload(page: Page, server: Server) -> None:
    open_console(page, server)
    expect(page.locator(".light")).to_have_count(6)
    page.evaluate("window.sameDocument = true")
    server.kill()
    expect(page.locator(".lost")).to_contain_text("No connection to the server")
    server.start()
    expect(page.locator(".lost")).to_have_count(0)
    server.post({"type": "t.a", "entity": "e", "data": 1})
    expect(page.locator(".figure", has_text="Retained").locator("dd")).to_contain_text("1 ")
    assert page.evaluate("window.sameDocument")


def test_a_source_is_paused_and_resumed_and_the_log_says_who_did_it(page: Page, sourced: Server) -> None:
    open_console(page, sourced, "ingest")
    row = page.locator("tbody tr", has_text="heartbeat")
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".state")).to_have_text("paused")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator(".light.amber")).to_contain_text("heartbeat is paused")
    page.get_by_role("link", name="sources").click()
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_role("status")).to_have_text("resumed")
    row.get_by_role("button", name="Run now").click()
    expect(row.get_by_role("status")).to_have_text("asked")
    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody tr").last).to_contain_text("pause source")


def test_an_actor_is_found_opened_and_looked_into_by_keyboard(page: Page, server: Server) -> None:
    server.post({"type": "t.a", "entity": "e", "data": 1})
    open_console(page, server, "actors")
    page.keyboard.press("/")
    page.keyboard.type("broadcasters")
    expect(page.locator(".row").first).to_contain_text("SignalBroadcaster")
    expect(page.locator(".row", has_text="Tickets")).to_have_count(0)
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("h2").first).to_be_focused()
    expect(page.locator(".facts")).to_contain_text("SignalBroadcaster")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("region", name="Stored values").locator("tbody tr").first).to_be_visible()
    page.get_by_role("button", name="Run alarm").click()
    expect(page.get_by_role("status")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_visible()


def test_an_actor_is_aborted_once_somebody_has_confirmed_it(page: Page, server: Server) -> None:
    open_console(page, server, "actors")
    page.get_by_role("searchbox").fill("tickets")
    page.locator(".row", has_text="Tickets").click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Abort").click()
    assert page.get_by_role("status").inner_text() == ""
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Abort").click()
    expect(page.get_by_role("status")).to_have_text("abort: done")
    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("abort")


def test_of_ten_thousand_actors_only_those_in_view_are_drawn(page: Page, server: Server) -> None:
    page.route("**/console/api/actors?*", many)
    open_console(page, server, "actors")
    expect(page.locator(".row").first).to_contain_text("actor-0")
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(page.locator(".row[aria-selected=true]")).to_contain_text("actor-9999")
    assert page.locator(".row").count() < 60


def many(route: Route) -> None:
    """What the API says of 10,000 actors."""
    query = parse_qs(urlsplit(route.request.url).query)
    offset, limit = (int(query[name][0]) for name in ("offset", "limit"))
    rows = [one(n) for n in range(offset, min(offset + limit, 10_000))]
    route.fulfill(json={"total": 10_000, "matched": 10_000, "classes": ["Room"], "actors": rows})


def one(n: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("mailbox", "in_flight", "restarts", "sockets"), 0)
    nothing = dict.fromkeys(("last_event", "last_event_at", "alarm_at", "last_error"))
    about = {"id": f"{n:064x}", "class": "Room", "namespace": "rooms", "name": f"actor-{n}", "state": "idle"}
    return {**about, **numbers, **nothing, "storage": "kv", "why_awake": []}


def test_signals_are_followed_filtered_paused_and_published(page: Page, server: Server) -> None:
    server.post({"type": "t.old", "entity": "e", "data": 1})
    open_console(page, server, "signals")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Types").fill("t.new")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(0)
    page.get_by_label("Type", exact=True).fill("t.new")
    page.get_by_label("Entity", exact=True).fill("e")
    page.get_by_label("Data as JSON").fill("{")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("status")).to_contain_text("JSON")
    page.get_by_label("Data as JSON").fill('{"pct": 3}')
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("status")).to_have_text("stored as 2")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text('{"pct":3}')
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("status")).to_have_text("stored as 3")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("tbody tr")).to_have_count(2)


def traced(server: Server) -> int:
    """Publish until the stream knows that somebody looks, and the page is live; the offset of a signal that it got."""
    for _ in range(5_000):
        (offset,) = server.post({"type": "t.new", "entity": "e", "data": {"pct": 3}})
        with urllib.request.urlopen(f"{server.url}/console/api/trace/main/{offset}", timeout=READY_S) as response:
            if len(json.load(response)["steps"]) == 5:
                return offset
    raise AssertionError("no delivery was traced while the console was open")


def test_a_signal_shows_its_way_by_mouse_and_by_keyboard(page: Page, server: Server, told: Told) -> None:
    open_console(page, server, "signals")
    offset = traced(server)
    trace = page.locator("section.trace")
    # The rows above and below it came while the stream did not know yet that somebody looks.
    way = page.get_by_role("button", name=f"Trace signal {offset}", exact=True)
    page.locator("tbody tr.opens", has=way).locator("code").click()
    steps = ["ingested", "evaluated", "stored", "first delivery", "last delivery"]
    expect(trace.locator("tbody th")).to_have_text(steps)
    expect(trace.locator("h2")).to_have_text(f"Signal {offset:,} t.new · e")
    expect(trace.locator("tbody tr").last).to_contain_text("subscriptions that got it")
    expect(trace.locator("h2")).to_be_focused()
    if AXE.exists():
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
    page.keyboard.press("Escape")
    expect(trace).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(trace).to_have_count(1)
    page.get_by_role("button", name="Close the trace").click()
    way.press("Enter")
    expect(trace.locator("tbody tr")).to_have_count(5)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert told.complaints == []


def test_a_signal_that_came_while_nobody_looked_says_so(page: Page, server: Server) -> None:
    server.post({"type": "t.old", "entity": "e", "data": 1})
    open_console(page, server, "signals")
    page.locator("tbody tr.opens", has_text="t.old").click()
    expect(page.locator("section.trace")).to_contain_text("Its way is not known")


def test_with_a_password_one_signs_in_and_out(page: Page, locked: Server) -> None:
    page.goto(f"{locked.url}/console/")
    page.get_by_label("Password").fill("a wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("the password is wrong")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".light")).to_have_count(6)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_the_keyboard_alone_reaches_every_page(page: Page, server: Server) -> None:
    open_console(page, server)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for name in PAGES[1:]:
        page.get_by_role("link", name=name.capitalize(), exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(name.capitalize())
        expect(page.locator("#main")).to_be_focused()


def test_dark_follows_the_system_until_somebody_chooses(page: Page, server: Server) -> None:
    page.emulate_media(color_scheme="dark")
    open_console(page, server)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(page.locator("h1")).to_have_text("Overview")
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_a_page_without_scrolling_sideways(page: Page, sourced: Server, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    open_console(page, sourced, name)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(page: Page, sourced: Server, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make js` installs it")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for name in PAGES:
        open_console(page, sourced, name)
        expect(page.locator(".light, .row, tbody tr, .empty").first).to_be_visible()
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate(
            "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))"
        )
        assert found == [], name


@pytest.fixture
def sourced(tmp_path: Path) -> Iterator[Server]:
    yield from running(
        tmp_path,
        '[[sources]]\nname = "heartbeat"\nkind = "host"\nschedule = "@every 1h"\n',
        sources=True,
    )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path, f'[console]\npasswords = ["{PASSWORD}"]\n')


def running(folder: Path, config: str, *, sources: bool = False) -> Iterator[Server]:
    path = folder / "heliograph.toml"
    path.write_text(config)
    server = Server(folder / "data", "--config", str(path), sources=sources)
    server.start()
    yield server
    server.kill()
