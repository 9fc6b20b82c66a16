"""Where the cursors of named subscriptions are kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread

from actors.filters import Filter
from actors.protocol.cursor import Cursor, InvalidCursor

_FORMAT = "heliograph-cursors"
_VERSION = 1


class InvalidCursorFile(ValueError):
    """The file is not one of `FileCursorStore`, or is damaged; nothing was read from it and nothing written to it."""


class CursorStore(Protocol):
    """Keeps cursors by key. A store that fails ends the client's block with its error."""

    async def load(self, key: str) -> Cursor | None:
        """The cursor that was saved last; None when there was none."""
        ...

    async def save(self, cursors: Mapping[str, Cursor]) -> None:
        """Keep these, too; returns once they would survive the end of the process."""
        ...


class MemoryCursorStore:
    """Keeps cursors as long as it lives: over the clients of one process, and in tests."""

    def __init__(self) -> None:
        self.cursors: dict[str, Cursor] = {}

    async def load(self, key: str) -> Cursor | None:
        """The cursor that was saved last."""
        return self.cursors.get(key)

    async def save(self, cursors: Mapping[str, Cursor]) -> None:
        """Keep these."""
        self.cursors |= cursors


class FileCursorStore:
    """Keeps cursors in one file, which a crash leaves as it was before a save, or as it is after it.

    A save writes a new file beside it, syncs it to the disk and puts it in place. One process at a time; several
    subscriptions, and several clients with the same store, are fine.

    Args:
        path: the file; made at the first save, in a folder that is there.

    Raises: InvalidCursorFile from `load` and `save` when the file is another, or damaged; OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._cursors: dict[str, Cursor] | None = None
        self._busy = anyio.Lock()

    async def load(self, key: str) -> Cursor | None:
        """The cursor that was saved last. Raises: InvalidCursorFile, OSError."""
        async with self._busy:
            return (await self._known()).get(key)

    async def save(self, cursors: Mapping[str, Cursor]) -> None:
        """Keep these, too. Raises: InvalidCursorFile, OSError."""
        async with self._busy:
            known = {**await self._known(), **cursors}
            await anyio.to_thread.run_sync(_write, self.path, known)
            self._cursors = known

    async def _known(self) -> dict[str, Cursor]:
        if self._cursors is None:
            self._cursors = await anyio.to_thread.run_sync(_read, self.path)
        return self._cursors


def cursor_key(name: str, filter: Filter) -> str:  # noqa: A002 - the protocol's word
    """What a subscription's cursor is kept by: a cursor means nothing for another filter."""
    return f"{name} {hashlib.sha256(filter.canonical.encode()).hexdigest()[:32]}"


def _read(path: Path) -> dict[str, Cursor]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        match json.loads(text):
            case {"format": str(kind), "version": int(version), "cursors": dict(cursors)} if kind == _FORMAT:
                if version != _VERSION:
                    raise InvalidCursorFile(f"{path} has version {version}; this release reads {_VERSION}")
                return {key: Cursor.parse(str(value)) for key, value in cast("dict[str, Any]", cursors).items()}
            case _:
                raise InvalidCursorFile(f"{path} is not a file of cursors; choose another path, or move it away")
    except InvalidCursorFile:
        raise
    except (ValueError, InvalidCursor) as error:
        raise InvalidCursorFile(
            f"{path} is damaged: {error}; repair it, or move it away to begin by `since` again"
        ) from error


def _write(path: Path, cursors: Mapping[str, Cursor]) -> None:
    content = {"format": _FORMAT, "version": _VERSION, "cursors": {key: str(at) for key, at in cursors.items()}}
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
