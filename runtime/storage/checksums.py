"""Page checksums: SQLite's `cksumvfs`, so that a damaged page is refused instead of served."""

from __future__ import annotations

import ctypes

import apsw
import apsw.sqlite_extra

from runtime.storage.store import StoreUnusable

CHECKSUM_VFS = "cksmvfs"
"""The VFS to open checksummed databases with, once `load_checksums` was called."""

_CHECKSUM_BYTES = 8  # at the end of each page; what cksumvfs asks for


def load_checksums() -> None:
    """Register SQLite's checksum VFS with this process. Raises: StoreUnusable."""
    if CHECKSUM_VFS in apsw.vfs_names():
        return
    if apsw.sqlite_extra.has("cksumvfs") is None:
        raise StoreUnusable(
            "this build of apsw has no cksumvfs, so that pages could not be checksummed; "
            "install apsw from its wheels (pip install apsw)"
        )
    connection = apsw.Connection(":memory:")
    try:
        apsw.sqlite_extra.load(connection, "cksumvfs")
    finally:
        connection.close()


def reserve_checksums(connection: apsw.Connection) -> None:
    """Make room for checksums in a database that has no page yet."""
    reserve = ctypes.c_int(_CHECKSUM_BYTES)
    connection.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(reserve))
