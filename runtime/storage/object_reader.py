"""What the database of one object holds, for people; whether a server has it or not. Everything here blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import attrs

from runtime.storage.checksums import CHECKSUM_VFS, load_checksums
from runtime.storage.object_file import KEYS
from runtime.storage.object_history import ObjectHistory
from runtime.storage.object_log import Mark
from runtime.storage.store import StoreUnusable

_TABLES = (
    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' "
    "AND name NOT LIKE 'sqlite^_%' ESCAPE '^' AND name NOT LIKE '^_cf^_%' ESCAPE '^' ORDER BY name"
)


@attrs.define(eq=False)
class ObjectReader:
    """An object's database and its history, read without changing or locking them."""

    _path: Path

    def pairs(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Its keys and values in byte order. Raises: StoreUnusable: the database is damaged."""
        with _reading(self._path) as connection:
            if connection is None or not connection.table_exists("main", KEYS):
                return
            statement = f"SELECT key, value FROM {KEYS} WHERE key >= ? ORDER BY key"  # noqa: S608 -- constant
            for key, value in connection.execute(statement, (prefix,)):
                if not key.startswith(prefix):
                    return
                yield key, value

    def tables(self) -> list[tuple[str, int]]:
        """Its tables, and how many rows they have. Raises: StoreUnusable: the database is damaged."""
        with _reading(self._path) as connection:
            if connection is None:
                return []
            names: list[str] = [name for (name,) in connection.execute(_TABLES)]
            quoted = [name.replace('"', '""') for name in names]
            counts = [connection.execute(f'SELECT count(*) FROM "{name}"').get for name in quoted]  # noqa: S608
            return list(zip(names, counts, strict=True))

    def marks(self, limit: int) -> list[Mark]:
        """The points before its changes that are recorded, the newest first; a server records when it checkpoints.

        Raises:
            StoreUnusable: the history cannot be read.
        """
        try:
            marks = ObjectHistory(self._path).marks()
        except OSError as error:
            raise StoreUnusable(f"the history of {self._path} cannot be read: {error}") from error
        points = {mark.point: mark for mark in marks}
        return list(reversed(points.values()))[:limit]


@contextmanager
def _reading(path: Path) -> Generator[apsw.Connection | None, None, None]:
    """The database, None if there is none."""
    load_checksums()
    if not path.exists():
        yield None
        return
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=CHECKSUM_VFS)
        try:
            connection.set_busy_timeout(1_000)
            yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreUnusable(f"cannot read {path}: {error}") from error
