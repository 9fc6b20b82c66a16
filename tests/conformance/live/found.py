"""Writes a difference down: a scenario, its trace, and both traces side by side for reading.

The folder is one that `python -m tests.conformance SCENARIOS TRACES` runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.conformance.compare import ABSENT, sequences, text_of

LINE = 112
_COLUMN = 64


def write_down(
    folder: Path, name: str, program: Mapping[str, Any], there: Mapping[str, Any], here: Mapping[str, Any]
) -> Path:
    """Write `scenarios/NAME.json`, `traces/NAME.json` and `NAME.txt` into a folder; the last is returned."""
    callers_together = [["driver" if who.startswith("driver ") else who, *event] for who, *event in there["events"]]
    for part, value in (("scenarios", program), ("traces", {**there, "events": callers_together})):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{name}.json").write_text(laid_out({**value, "name": name}) + "\n", encoding="utf-8")
    path = folder / f"{name}.txt"
    path.write_text(f"{laid_out({**program, 'name': name})}\n\n{side_by_side(there, here)}\n", encoding="utf-8")
    return path


def laid_out(value: Any, indent: int = 0) -> str:
    """JSON with as much on a line as fits."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + indent <= LINE or not isinstance(value, list | dict) or not value:
        return text
    inner = indent + 2
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {laid_out(item, inner)}" for key, item in value.items()]
        opening, closing = "{}"
    else:
        parts = [laid_out(item, inner) for item in value]
        opening, closing = "[]"
    # An operation begins on the line of its bracket: its name is what one looks for.
    if opening == "[" and isinstance(value[0], str):
        return f"[{', '.join(parts)}]"
    between = ",\n" + " " * inner
    return f"{opening}\n{' ' * inner}{between.join(parts)}\n{' ' * indent}{closing}"


def side_by_side(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Both traces, what each `who` did below its name; a line that differs is marked."""
    lines = [f"    {'on workerd':{_COLUMN}}here"]
    left, right = sequences(there), sequences(here)
    for who in sorted(left.keys() | right.keys()):
        lines.append(who)
        for one, other in zip_longest(_lines(left.get(who, ())), _lines(right.get(who, ())), fillvalue=ABSENT):
            lines.append(f"  {' ' if one == other else '≠'} {one:{_COLUMN - 1}} {other}".rstrip())
    return "\n".join(lines)


def _lines(events: Sequence[Any]) -> list[str]:
    return [text_of(event) for event in events]
