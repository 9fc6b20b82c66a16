"""The cursors of a client that are not in its store yet, and the task that puts them there."""

from __future__ import annotations

import anyio

from actors.client.cursor_store import CursorStore
from actors.protocol.cursor import Cursor

STORE_S = 0.5  # between two writes: what was taken since the last one may come again after a crash


class Cursors:
    """Writes cursors to a store, the newest of each key, at most every `STORE_S` and at the end."""

    def __init__(self, store: CursorStore) -> None:
        self._store = store
        self._unsaved: dict[str, Cursor] = {}
        self._moved = anyio.Event()
        self._failed = False

    async def load(self, key: str) -> Cursor | None:
        """Where a subscription goes on. Raises: what the store does."""
        return self._unsaved.get(key) or await self._store.load(key)

    def move(self, key: str, cursor: Cursor) -> None:
        """Write this one soon."""
        self._unsaved[key] = cursor
        self._moved.set()

    async def keep(self) -> None:
        """Write until cancelled. Raises: what the store does."""
        while True:
            await self._moved.wait()
            self._moved = anyio.Event()
            await self._save()
            await anyio.sleep(STORE_S)

    async def finish(self) -> None:
        """Write what is left, whoever cancels; a store that failed is not asked again. Raises: what it does."""
        if self._unsaved and not self._failed:
            with anyio.CancelScope(shield=True):
                await self._save()

    async def _save(self) -> None:
        cursors = dict(self._unsaved)
        try:
            await self._store.save(cursors)
        except Exception:
            self._failed = True
            raise
        self._unsaved = {key: at for key, at in self._unsaved.items() if cursors.get(key) != at}
