"""What the history of the shared database holds of old values: some of them deflated, by SQL functions in C.

With what is there beside them, old values as they are would take a little more than what replaces them. Deflating takes
20 us of each KiB of a commit and 8 us of each KiB that is brought back, which is more than writing it. So only so many
are deflated that the history takes less than what it is of: of the values that are long enough, one in `ONE_IN`.

The functions are SQLite's `sqlar`. In C, because a function in Python would wait for the interpreter at every row.
"""

from __future__ import annotations

import apsw
import apsw.sqlite_extra

from runtime.storage.store import StoreUnusable

ONE_IN = 8  # rows of the history
LEAST_BYTES = 256  # shorter ones hardly get shorter

_CHOSEN = f"length(OLD.value) >= {LEAST_BYTES} AND (SELECT max(id) FROM history) % {ONE_IN} = 0"  # noqa: S608 -- constants
OLD_VALUE = f"iif({_CHOSEN}, sqlar_compress(OLD.value), OLD.value), iif({_CHOSEN}, length(OLD.value), NULL)"
"""In a trigger: the value and size of the row of `history` for the row that was there."""

VALUE_THEN = "iif(size IS NULL, value, sqlar_uncompress(value, size))"
"""The value in a row of `history`; NULL when the key was absent."""


def load_deflate(connection: apsw.Connection) -> None:
    """Let a connection use what is here. Raises: StoreUnusable."""
    if apsw.sqlite_extra.has("sqlar") is None:
        raise StoreUnusable(
            "this build of apsw has no sqlar, so that the history could not be read; "
            "install apsw from its wheels (pip install apsw)"
        )
    apsw.sqlite_extra.load(connection, "sqlar")
