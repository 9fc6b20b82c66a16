"""The picture of the live page: `python -m tests.browser.screenshot URL docs/images/live.png`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.chromium import chromium, find_chromium

BYTES = 200 * 1_024
WATCH_MS = 20_000  # long enough for curves


def take(url: str, target: Path) -> None:
    """Watch the page at `url` for a while and save it as a PNG of 1280 x 800, in the light theme.

    Raises: SystemExit, when there is no Chromium or the picture is larger than 200 kB.
    """
    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium found: set CHROMIUM to its path")
    with chromium(path) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(url)
        page.wait_for_selector("li[data-offset]")
        page.wait_for_timeout(WATCH_MS)
        png = page.screenshot()
    if len(png) > BYTES:
        raise SystemExit(f"the picture has {len(png):,} bytes; at most {BYTES:,}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m tests.browser.screenshot URL FILE")
    take(sys.argv[1], Path(sys.argv[2]))
