"""Room in a write-ahead log for what comes: a sync of a file that has grown takes as long as two.

It has to write where the file ends, too. So a log that is written to grows by zeros, about as many pages as it has
already: SQLite takes what has no checksum for the log's end.
"""

from __future__ import annotations

import contextlib
import os

from runtime.storage.object_log import log_bytes, log_pages

_FROM = 4  # pages: a database that is written to once needs none
_LEAST, _MOST = 8, 64  # pages at a time


class LogRoom:
    """The room that a log has.

    Args:
        log: a descriptor of it, opened for writing; the caller's.
    """

    __slots__ = ("_log", "_pages")

    def __init__(self, log: int) -> None:
        self._log = log
        self._pages = _FROM

    def taken(self, pages: int) -> None:
        """So many pages of the log are used now: make room when no more are left. Blocks for as long as a write."""
        if pages < self._pages:
            return
        with contextlib.suppress(OSError):  # no space: those who write will see it
            wanted = log_bytes(pages + min(max(pages, _LEAST), _MOST))
            end = os.fstat(self._log).st_size
            if end < wanted:
                end += os.pwrite(self._log, bytes(wanted - end), end)
            self._pages = log_pages(end)
