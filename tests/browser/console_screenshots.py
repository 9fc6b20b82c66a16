"""The pictures of the console: `python -m tests.browser.console_screenshots docs/images`, of a server of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.browser.chromium import chromium, find_chromium
from tests.browser.past import write_past
from tests.browser.serving import Server

CONFIG = """
[[sources]]
name = "host"
kind = "host"
schedule = "@every 1s"

[[sources]]
name = "prices"
kind = "command"
schedule = "@every 2s"
options = {{ argv = ["{python}", "{program}"] }}

[[sources]]
name = "weather"
kind = "http"
schedule = "0 6 * * *"
timezone = "Europe/Berlin"
options = {{ url = "http://127.0.0.1:9/forecast", type = "weather.forecast", entity = "/city" }}
"""
PROGRAM = """
import json, random
for name in ("btc", "eth", "sol"):
    print(json.dumps({"type": "price.tick", "entity": name, "data": {"pct": round(random.uniform(-4, 4), 2)}}))
"""
READERS = (
    ("--types", "price.>"),
    ("--types", "price.>", "--entities", "btc"),
    ("--types", "host.>"),
    ("--types", "price.>", "--where", '{"f":"/data/pct","op":"gte","v":2.5}'),
)
WATCH_MS = 20_000  # long enough for curves
PAGES = ("overview", "actors", "connections", "subscriptions", "signals", "ingest", "analytics", "audit")


def take(target: Path) -> None:
    """Save `console-PAGE.png` of each page, 1280 wide; some in dark, too, and the overview as a phone shows it.

    Raises: SystemExit, when there is no Chromium.
    """
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium found: set CHROMIUM to its path")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser, _served(Path(folder)) as server:
        for _ in range(3):
            browser.new_page().goto(server.url)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        _act(page, server)
        for name in PAGES:
            _open(page, server, name)
            page.screenshot(path=target / f"console-{name}.png")
        _open(page, server, "connections")
        page.locator(".row", has_text="python").first.click()
        page.wait_for_timeout(4_000)
        page.screenshot(path=target / "console-connection.png")
        _trace(page, server, target)
        _elsewhere(browser, server, target)
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        _faulty(browser, Path(folder), target)


def _trace(page: Page, server: Server, target: Path) -> None:
    _open(page, server, "signals")
    page.wait_for_timeout(4_000)  # for signals that came while somebody looked
    page.locator("tr.opens", has_text="price.tick").first.click()
    page.locator("section.trace tbody tr").last.wait_for()
    page.wait_for_timeout(1_500)
    page.screenshot(path=target / "console-trace.png")


def _elsewhere(browser: Browser, server: Server, target: Path) -> None:
    dark = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    for name in ("overview", "analytics"):
        _open(dark, server, name)
        dark.screenshot(path=target / f"console-{name}-dark.png")
    phone = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="light")
    _open(phone, server, "overview")
    phone.screenshot(path=target / "console-overview-phone.png")


def _faulty(browser: Browser, folder: Path, target: Path) -> None:
    server = Server(folder / "data", "--faults")
    server.start()
    try:
        for _ in range(3):
            browser.new_page().goto(server.url)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto(f"{server.url}/console/#/faults")
        for kind in ("Skew clock", "Drop sockets"):
            page.get_by_role("button", name=kind).click()
            page.wait_for_timeout(4_000)
            page.get_by_role("button", name="End it").click()
        page.get_by_role("form", name="Stall sockets").get_by_role("button").click()
        page.wait_for_timeout(2_500)
        page.screenshot(path=target / "console-faults.png", full_page=True)
    finally:
        server.kill()


def _act(page: Page, server: Server) -> None:
    """What an operator does, so that the log has something to say."""
    page.goto(f"{server.url}/console/#/ingest")
    row = page.locator("tbody tr", has_text="host").first
    for deed in ("Pause", "Resume", "Run now"):
        row.get_by_role("button", name=deed).click()
        page.wait_for_timeout(300)
    page.goto(f"{server.url}/console/#/signals")
    page.get_by_label("Type", exact=True).fill("price.tick")
    page.get_by_label("Entity", exact=True).fill("btc")
    page.get_by_label("Data as JSON").fill('{"pct": 3.1}')
    page.get_by_role("button", name="Publish").click()


def _open(page: Page, server: Server, name: str) -> None:
    wish = {"analytics": "?span=day", "actors": "?sort=mailbox"}.get(name, "")
    page.goto(f"{server.url}/console/#/{name}{wish}")
    page.wait_for_timeout(WATCH_MS if name == "overview" else 2_500)
    if name == "subscriptions":
        page.get_by_label("Signal as JSON").fill('{"type": "price.tick", "entity": "btc", "data": {"pct": 1.5}}')
        page.get_by_role("button", name="Explain").click()
        page.wait_for_timeout(500)


@contextmanager
def _served(folder: Path) -> Iterator[Server]:
    """A server with a past, sources and readers."""
    config = folder / "heliograph.toml"
    program = folder / "prices.py"
    program.write_text(PROGRAM)
    config.write_text(CONFIG.format(python=sys.executable, program=program))
    write_past(folder / "data")
    server = Server(folder / "data", "--config", str(config), sources=True)
    server.start()
    with ExitStack() as stack:
        stack.callback(server.kill)
        for options in READERS:
            command = [sys.executable, "-m", "runtime", "tail", server.url, *options]
            reader = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(reader.kill)
        yield server


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.browser.console_screenshots FOLDER")
    take(Path(sys.argv[1]))
