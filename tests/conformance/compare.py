"""What two traces of one scenario have to have in common, and where they differ.

Compared are the events of each `who` in their order, and what each client received. How the events of different
`who`s interleave is the runtime's own business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

ABSENT = "—"
_ROW = re.compile(
    r"^\| (?P<scenario>[^|]+) \| (?P<where>[^|]+) \| `(?P<recorded>.*)` \| `(?P<here>.*)` \| (?P<reason>.+) \|$"
)


@attrs.frozen
class Difference:
    """One place where two traces differ.

    Attributes:
        where: who and the index among its events, or the client and the index among what it received.
        recorded, here: the label and value there and here as JSON, or a dash where there is none.
    """

    scenario: str
    where: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.where}: recorded {self.recorded}, here {self.here}"


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """Everything in which a trace differs from the recorded one."""
    name = recorded["name"]
    found: list[Difference] = []
    ours, theirs = sequences(here), sequences(recorded)
    for where in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(where, []), theirs.get(where, [])
        for index in range(max(len(mine), len(other))):
            a = text_of(other[index]) if index < len(other) else ABSENT
            b = text_of(mine[index]) if index < len(mine) else ABSENT
            if a != b:
                found.append(Difference(name, f"{where} {index}", a, b))
    return found


def accepted(path: Path) -> dict[Difference, str]:
    """The differences of a table in Markdown that are meant, with their reasons.

    Raises:
        ValueError: a row is malformed or has no reason.
    """
    found: dict[Difference, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|") or line.startswith(("| scenario |", "| --- |")):
            continue
        row = _ROW.match(line)
        if row is None:
            raise ValueError(f"{path.name}: not a row of the table: {line}")
        where = row["where"].strip()
        values = [row[name].replace("\\|", "|") for name in ("recorded", "here")]
        found[Difference(row["scenario"].strip(), where, *values)] = row["reason"]
    return found


def row(difference: Difference, reason: str) -> str:
    """A difference as a row of the table."""
    recorded, here = (text.replace("|", "\\|") for text in (difference.recorded, difference.here))
    return f"| {difference.scenario} | {difference.where} | `{recorded}` | `{here}` | {reason} |"


def sequences(trace: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What is compared: the events of each `who`, and what each client received, in their order."""
    found: dict[str, list[Any]] = {}
    for who, *event in trace["events"]:
        found.setdefault(who if len(who) <= 40 else f"{who[:16]}… ({len(who)})", []).append(event)
    for client, received in trace.get("clients", {}).items():
        found[f"client {client}"] = list(received)
    return found


def text_of(event: Any) -> str:
    """An event as one text for all that is equal to it."""
    return json.dumps(_canonical(event), ensure_ascii=False, sort_keys=True)


def _canonical(value: Any) -> Any:
    """One form for what is equal: 1 and 1.0, and sets in any order (a set has none here)."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        items = {key: _canonical(item) for key, item in value.items()}
        if items.get("$") == "set":
            items["items"] = sorted(items["items"], key=text_of)
        return items
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
