"""The pictures of the console: `python -m tests.browser.console_screenshots docs/images`, of a server of their own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.chromium import chromium, find_chromium
from tests.browser.serving import Server

CONFIG = '[[sources]]\nname = "host"\nkind = "host"\nschedule = "@every 1s"\n'
PAGES = ("overview", "actors", "signals", "ingest", "audit")
WATCH_MS = 12_000  # long enough for curves


def take(target: Path) -> None:
    """Save `console-PAGE.png` of each page, 1280 x 800.

    Raises: SystemExit, when there is no Chromium.
    """
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium found: set CHROMIUM to its path")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        config = Path(folder) / "heliograph.toml"
        config.write_text(CONFIG)
        server = Server(Path(folder) / "data", "--config", str(config), sources=True)
        server.start()
        try:
            reader = browser.new_page()
            reader.goto(server.url)
            page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
            page.goto(f"{server.url}/console/#/ingest")
            page.get_by_role("button", name="Run now").click()
            for name in PAGES:
                page.goto(f"{server.url}/console/#/{name}")
                page.wait_for_timeout(WATCH_MS if name == "overview" else 1_500)
                page.screenshot(path=target / f"console-{name}.png")
        finally:
            server.kill()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.browser.console_screenshots FOLDER")
    take(Path(sys.argv[1]))
