"""Where Chromium is and how tests start it: no sandbox, no traffic of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The path of the first Chromium there is: `CHROMIUM`, then the usual places; None without one."""
    for name in filter(None, (os.environ.get("CHROMIUM"), *NAMES)):
        if (path := shutil.which(name)) is not None:
            return path
    return None


@contextmanager
def chromium(path: str) -> Generator[Browser]:
    """A browser for the time of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
