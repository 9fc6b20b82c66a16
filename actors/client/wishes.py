"""What an application asks for, in its own types, as the protocol's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from actors.client.buffer import AckWhen, Overflow
from actors.client.conditions import Condition
from actors.filters import Filter
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.limits import LATEST_MS, LATEST_MS_MAX, LATEST_MS_MIN
from actors.protocol.requests import Mode, OnGap, OnSlow

_CHOICES: dict[str, tuple[str, ...]] = {
    "on_gap": get_args(OnGap),
    "on_slow": get_args(OnSlow),
    "overflow": get_args(Overflow),
    "ack": get_args(AckWhen),
}


def filter_of(parts: Mapping[str, Any]) -> Filter:
    """The filter of `types`, `entities` and `where`; a part that is None is left out. Raises: InvalidFilter."""
    return Filter.parse({key: _plain(part) for key, part in parts.items() if part is not None})


def since_of(since: Since | str) -> Since:
    """Where to begin; any other text is a cursor's. Raises: InvalidCursor."""
    match since:
        case "now" | "earliest" | "snapshot" | Last() | Ago() | Cursor():
            return since
        case _:
            return Cursor.parse(since)


def history_since_of(since: Since | str | None, *, reverse: bool) -> Since:
    """Where to begin to read what is stored. Raises: InvalidCursor, ValueError."""
    if since is None:
        return "now" if reverse else "earliest"
    wanted = since_of(since)
    if wanted == "snapshot" or (reverse and wanted != "now" and not isinstance(wanted, Cursor)):
        allowed = "'now' or a cursor in reverse" if reverse else "'earliest', Last, Ago or a cursor"
        raise ValueError(f"since is {wanted!r}; for history it is {allowed}")
    return wanted


def check_choices(**chosen: str) -> None:
    """Each is one of the words that its parameter knows. Raises: ValueError."""
    for name, value in chosen.items():
        if value not in _CHOICES[name]:
            *others, last = map(repr, _CHOICES[name])
            raise ValueError(f"{name} is {value!r}; it is {', '.join(others)} or {last}")


def min_ms_of(mode: Mode, min_ms: int | None) -> int:
    """The protocol's way to say a mode: 0 for `all`, else that of `latest`. Raises: ValueError."""
    if mode not in ("all", "latest"):
        raise ValueError(f"mode is {mode!r}; it is 'all' or 'latest'")
    if mode == "all":
        if min_ms is not None:
            raise ValueError("min_ms is of mode 'latest'")
        return 0
    if min_ms is not None and not LATEST_MS_MIN <= min_ms <= LATEST_MS_MAX:
        raise ValueError(f"min_ms is {min_ms}; it is {LATEST_MS_MIN} … {LATEST_MS_MAX:,}")
    return LATEST_MS if min_ms is None else min_ms


def _plain(part: object) -> object:
    """JSON's own types for what applications pass: conditions as trees, tuples as lists, mappings as dicts."""
    if isinstance(part, Condition):
        return part.tree
    return dict(part) if isinstance(part, Mapping) else list(part) if isinstance(part, tuple) else part
