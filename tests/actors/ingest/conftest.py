"""Secrets that the examples of the how-to pages take from the environment."""

from __future__ import annotations

import pytest

NAMES = ("QUAKES_KEY", "BACKUP_TOKEN", "SHOP_SECRET", "SHOP_SECRET_BEFORE", "TRADES_TOKEN", "BERLIN_TOKEN")


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{name.lower()}-0123456789abcdef")
