"""A server and a page for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.serving import Server

PATIENCE_MS = 20_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    running.start()
    yield running
    running.kill()


class Told:
    """What a page asked of other origins, and what it complained about."""

    def __init__(self, page: Page, origin: str) -> None:
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url, origin))
        page.on("websocket", lambda ws: self._asked(ws.url.replace("ws://", "http://"), origin))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, url: str, origin: str) -> None:
        if not url.startswith((f"{origin}/", "data:")):
            self.elsewhere.append(url)

    def _said(self, kind: str, text: str) -> None:
        # Chromium itself logs each refused connection while the server is down.
        if kind in {"error", "warning"} and "ERR_CONNECTION_REFUSED" not in text:
            self.complaints.append(text)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def told(page: Page, server: Server) -> Told:
    return Told(page, server.url)
