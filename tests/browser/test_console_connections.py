"""Connections and subscriptions on the console's page, and the keys that work on all of its pages."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.console_answers import FILTER, MANY, Answers
from tests.browser.serving import Server
from tests.browser.test_console import AXE, open_console

pytestmark = pytest.mark.real
expect.set_options(timeout=PATIENCE_MS)


def opened(page: Page, server: Server) -> Answers:
    answers = Answers(page, server)
    open_console(page, server, "connections")
    page.locator(".row", has_text="user-0").first.click()
    expect(page.get_by_role("region", name="Flight recorder")).to_be_visible()
    return answers


def test_of_ten_thousand_connections_the_keyboard_finds_and_opens_one(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    open_console(page, server, "connections")
    expect(page.get_by_role("status")).to_have_text(f"{MANY:,} connections")
    expect(page.locator(".row").first).to_contain_text("40 behind")
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(page.locator(".row[aria-selected=true]")).to_contain_text(f"user-{MANY - 1}")
    assert page.locator(".row").count() < 60
    page.keyboard.press("Home")
    expect(page.locator(".row[aria-selected=true]")).to_contain_text("user-0")
    page.keyboard.press("Enter")
    expect(page.locator("h2").first).to_be_focused()
    expect(page.locator(".facts")).to_contain_text("40 signals")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_visible()
    assert all(int(one["limit"]) <= 200 for one in answers.asked)


def test_connections_are_filtered_and_sorted_by_the_server(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    open_console(page, server, "connections")
    page.get_by_label("State").select_option("slow")
    page.get_by_label("Sort by").select_option("backlog")
    page.get_by_role("button", name="Reversed").click()
    page.keyboard.press("/")
    with page.expect_request(lambda request: "q=anna" in request.url):
        page.keyboard.type("anna")
    asked = answers.asked[-1]
    assert (asked["state"], asked["sort"], asked["desc"]) == ("slow", "backlog_bytes", "1")


def test_the_light_of_the_clients_leads_to_the_slowest_first(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    open_console(page, server)
    page.get_by_role("link", name="clients").click()
    expect(page.locator(".row").first).to_be_visible()
    assert (answers.asked[-1]["sort"], answers.asked[-1]["desc"]) == ("backlog_bytes", "1")


def test_without_connections_the_page_says_how_to_get_one_and_shows_the_first(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    answers.connections = 0
    open_console(page, server, "connections")
    expect(page.locator(".empty")).to_contain_text("heliograph tail")
    answers.connections = 1
    expect(page.get_by_role("status")).to_have_text("1 connection")
    expect(page.locator(".row")).to_have_count(1)


def test_an_opened_connection_shows_its_subscriptions_and_its_newest_events_first(page: Page, server: Server) -> None:
    opened(page, server)
    expect(page.get_by_role("region", name="Its subscriptions").locator("tbody tr")).to_contain_text('"gte":2.5')
    events = page.get_by_role("region", name="Its last protocol events").locator("tbody tr")
    expect(events).to_have_count(200)
    expect(events.first).to_contain_text("event 199")


def test_a_connection_is_closed_with_a_reason_once_somebody_has_confirmed_it(page: Page, server: Server) -> None:
    answers = opened(page, server)
    page.get_by_role("button", name="Close…").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert answers.done == []
    page.get_by_role("button", name="Close…").click()
    page.get_by_label("Reason").fill("it floods us")
    page.get_by_role("button", name="Close the connection").click()
    expect(page.get_by_role("status")).to_have_text("close: done")
    assert answers.done == [("main/s0/close", {"reason": "it floods us"})]


def test_a_reason_that_no_close_frame_can_carry_is_refused_before_it_is_sent(page: Page, server: Server) -> None:
    answers = opened(page, server)
    page.get_by_role("button", name="Close…").click()
    page.get_by_label("Reason").fill("ü" * 62)
    page.get_by_role("button", name="Close the connection").click()
    expect(page.get_by_role("alert").filter(has_text="at most 123 bytes")).to_be_visible()
    assert answers.done == []


def test_a_connection_is_sent_away_and_the_page_says_when_it_has_ended(page: Page, server: Server) -> None:
    answers = opened(page, server)
    page.get_by_role("button", name="Send away").click()
    expect(page.get_by_role("status")).to_have_text("goaway: done")
    assert answers.done == [("main/s0/goaway", {})]
    answers.ended = True
    expect(page.get_by_role("alert").filter(has_text="has ended")).to_be_visible()
    expect(page.get_by_role("button", name="Close…")).to_be_disabled()
    expect(page.locator(".facts")).to_contain_text("user-0")


def test_a_filter_of_the_list_is_explained_node_by_node(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    open_console(page, server, "subscriptions")
    expect(page.locator(".row")).to_contain_text("2.5 %")
    page.get_by_role("listbox").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Signal as JSON")).to_be_focused()
    page.get_by_label("Signal as JSON").fill('{"type": "price.tick", "entity": "e", "data": {"pct": 1}}')
    page.get_by_role("button", name="Explain").click()
    refusing = page.locator(".tree li li", has=page.locator(".verdict.no"))
    expect(refusing).to_have_count(1)
    expect(refusing).to_contain_text("/data/pct >= 2.5")
    expect(refusing).to_contain_text("it is 1")
    _, body = answers.done[-1]
    assert body == {"filter": FILTER, "signal": {"type": "price.tick", "entity": "e", "data": {"pct": 1}}}


def test_without_a_filter_a_signal_is_explained_for_all_of_the_stream(page: Page, server: Server) -> None:
    answers = Answers(page, server)
    open_console(page, server, "subscriptions")
    page.get_by_label("Signal as JSON").fill("{")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("section .error")).to_contain_text("The signal is not JSON")
    assert answers.done == []
    page.get_by_label("Signal as JSON").fill('{"type": "t", "entity": "e", "data": 1}')
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".explained")).to_contain_text("7 members")
    assert answers.done[0][1]["stream"] == "main"


def test_a_question_mark_lists_the_keys(page: Page, server: Server) -> None:
    open_console(page, server, "actors")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#main").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("to the filter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_arrow_keys_walk_the_rows_of_a_table(page: Page, server: Server) -> None:
    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(3)))
    open_console(page, server, "signals")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    page.get_by_role("region", name="Signals").focus()
    for key, at in (("ArrowDown", 0), ("ArrowDown", 1), ("End", 2), ("ArrowDown", 2), ("ArrowUp", 1), ("Home", 0)):
        page.keyboard.press(key)
        expect(rows.nth(at)).to_be_focused()


def test_an_idle_actor_says_that_nothing_keeps_it_awake(page: Page, server: Server) -> None:
    about = {"id": "0" * 64, "class": "Room", "namespace": "rooms", "name": "hall", "state": "idle", "storage": "kv"}
    figures = dict.fromkeys(("mailbox", "in_flight", "restarts", "sockets"), 0)
    nothing = dict.fromkeys(("last_event", "last_event_at", "alarm_at", "last_error"))
    actor = {**about, **figures, **nothing, "why_awake": []}
    found = {"total": 1, "matched": 1, "classes": ["Room"], "actors": [actor]}
    page.route("**/console/api/actors?*", lambda route: route.fulfill(json=found))
    page.route("**/console/api/actors/**", lambda route: route.fulfill(json=actor))
    open_console(page, server, "actors")
    page.locator(".row").click()
    expect(page.locator(".facts div", has_text="Why awake")).to_contain_text("nothing keeps it")


def visit(page: Page, server: Server, name: str) -> None:
    """An opened actor, an opened connection, the closing dialog, or an explained signal."""
    if name == "actor":
        open_console(page, server, "actors")
        page.locator(".row").first.click()
        page.get_by_role("button", name="Look").click()
        expect(page.locator("section[aria-label=Storage]").locator("tbody tr, p").first).to_be_visible()
    elif name == "explained":
        open_console(page, server, "subscriptions")
        page.get_by_role("button", name="Explain").click()
        expect(page.locator(".tree")).to_be_visible()
    else:
        open_console(page, server, "connections")
        expect(page.locator(".row").first).to_be_visible()
        if name != "list":
            page.locator(".row").first.click()
            expect(page.get_by_role("region", name="Flight recorder")).to_be_visible()
        if name == "closing":
            page.get_by_role("button", name="Close…").click()


VISITED = ("list", "connection", "closing", "explained", "actor")


@pytest.mark.parametrize("name", VISITED)
def test_a_phone_shows_what_was_opened_without_scrolling_sideways(page: Page, server: Server, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    Answers(page, server)
    visit(page, server, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_phone_brings_the_name_of_the_page_into_view(page: Page, server: Server) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    open_console(page, server, "audit")
    box = page.get_by_role("link", name="Audit").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_what_was_opened(page: Page, server: Server, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make js` installs it")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    Answers(page, server)
    for name in VISITED:
        visit(page, server, name)
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate(
            "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))"
        )
        assert found == [], name
        page.reload()


# Of a server without answers of ours.

CONNECT = """([url, hello]) => new Promise((done) => {
  window.client = new WebSocket(url, "signals.v1.json");
  window.client.onopen = () => window.client.send(JSON.stringify(hello));
  window.client.onmessage = (event) => done(JSON.parse(event.data.split("\\n")[0]).session);
})"""


def connect(page: Page, server: Server) -> str:
    """Let the page be a client, too; its session."""
    url = f"{server.url.replace('http', 'ws', 1)}/v1/stream"
    hello = {"t": "hello", "id": 1, "client": {"sdk": "page"}, "subs": [{"s": "all", "filter": {"types": ["a.>"]}}]}
    session: str = page.evaluate(CONNECT, [url, hello])
    return session


def test_a_client_of_the_server_is_shown_recorded_and_closed(page: Page, server: Server) -> None:
    open_console(page, server, "connections")
    session = connect(page, server)
    page.get_by_role("searchbox").fill(session)
    page.locator(".row").first.click()
    events = page.get_by_role("region", name="Its last protocol events").locator("tbody tr")
    expect(events).to_contain_text(["recording"])
    page.evaluate("""window.client.send('{"t":"unsub","id":2,"s":"all"}')""")
    expect(events).to_contain_text(["ok", "unsub", "recording"])
    page.get_by_role("button", name="Close…").click()
    page.get_by_label("Reason").fill("by hand")
    page.get_by_role("button", name="Close the connection").click()
    expect(page.get_by_role("alert").filter(has_text="has ended")).to_be_visible()


def test_the_filter_of_a_client_of_the_server_is_shown_and_explained(page: Page, server: Server) -> None:
    open_console(page, server, "subscriptions")
    connect(page, server)
    expect(page.locator(".row").first).to_contain_text("types a.>")
    page.get_by_label("Signal as JSON").fill('{"type": "b", "entity": "e", "data": 1}')
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".explained")).to_contain_text("b is none of them")
