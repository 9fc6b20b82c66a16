"""The lineages that data had before it was copied, each with the last point that is of it: older bookmarks stay good.

The file `lineages` in a data directory is about the shared database, the one in an object's history about that object.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LINEAGES = "lineages"


def read_ancestors(folder: Path) -> Mapping[str, int]:
    """By lineage, the newest point that bookmarks of it may have. Raises: OSError."""
    try:
        lines = (folder / LINEAGES).read_text("ascii").splitlines()
    except FileNotFoundError:
        return {}
    return {lineage: int(point, 16) for lineage, _, point in (line.partition(" ") for line in lines)}


def add_ancestor(folder: Path, lineage: str, point: int) -> None:
    """Note in a copy what it was copied from, and where that was. Raises: OSError."""
    known = {**read_ancestors(folder), lineage: point}
    (folder / LINEAGES).write_text("".join(f"{one} {upto:016x}\n" for one, upto in known.items()), "ascii")
