"""A run as one HTML file: a lane for each node, actor and client, time from left to right, the contradiction in red."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from runtime.sim.faults import KINDS
from runtime.sim.simulate import Result
from runtime.sim.trace import Event

EVENTS_MAX = 4_000  # the newest; a browser draws more of them only slowly
_LANE, _LEFT, _STEP, _TOP = 26, 190, 14, 34

_COLOURS = {
    "call": "#2563eb", "ask": "#2563eb", "request": "#2563eb",
    "answer": "#16a34a", "told": "#16a34a", "response": "#16a34a", "delivered": "#16a34a",
    "turn": "#9ca3af", "leave": "#d1d5db", "begin": "#6366f1", "end": "#6366f1",
    "write": "#a16207", "submit": "#d97706", "commit": "#ca8a04", "durable": "#ca8a04", "sync": "#92400e",
    "effect": "#0d9488", "alarm": "#c026d3", "not stored": "#dc2626", "no answer": "#dc2626", "log": "#78716c",
}  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; background: #fff; color: #111 }}
pre {{ background: #f6f6f4; padding: 1rem; overflow-x: auto }}
.line {{ overflow-x: auto; border: 1px solid #ddd }}
svg text {{ font: 11px system-ui, sans-serif; fill: #333 }}
</style></head><body><h1>{title}</h1><div class="line">{svg}</div><pre>{text}</pre></body></html>
"""


def timeline(result: Result) -> str:
    """The newest 4,000 events of a run as a page without anything from elsewhere. Hover over a mark to read it.

    Each event has a column of its own, so that what happened at one moment stays apart; the scale tells the time.
    """
    events = _shown(result)
    lanes = {who: at for at, who in enumerate(_lanes(events))}
    place = {event.number: (_LEFT + at * _STEP, _TOP + lanes[event.who] * _LANE) for at, event in enumerate(events)}
    width, height = _LEFT + (len(events) + 2) * _STEP, _TOP + len(lanes) * _LANE + 12
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">']
    for who, at in lanes.items():
        y = _TOP + at * _LANE
        parts.append(f'<line x1="{_LEFT - 10}" y1="{y}" x2="{width}" y2="{y}" stroke="#eee"/>')
        parts.append(f'<text x="6" y="{y + 4}">{escape(who[:28])}</text>')
    parts += [f'<text x="{_LEFT + at * _STEP}" y="14">{events[at].at:.3f} s</text>' for at in range(0, len(events), 8)]
    for event in events:
        x, y = place[event.number]
        if event.what in KINDS or event.what in {"start", "quiesce", "opened", "serves", "healed"}:
            colour = "#dc2626" if event.what in KINDS else "#059669"
            parts.append(f'<line x1="{x}" y1="20" x2="{x}" y2="{height}" stroke="{colour}" stroke-opacity=".35"/>')
        colour = "#dc2626" if event.what in KINDS else _COLOURS.get(event.what, "#4b5563")
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"><title>{escape(str(event))}</title></circle>')
    parts += _contradiction(result, place)
    title = f"{result.scenario}, seed {result.seed}"
    return _PAGE.format(title=escape(title), svg="".join([*parts, "</svg>"]), text=escape(result.explain()))


def _shown(result: Result) -> Sequence[Event]:
    return [event for event in result.events if event.who != "disk" or event.what == "sync"][-EVENTS_MAX:]


def _lanes(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(event.who for event in events))


def _contradiction(result: Result, place: dict[int, tuple[int, int]]) -> list[str]:
    if result.failure is None:
        return []
    found = [place[number] for number in (result.failure.first, result.failure.second) if number in place]
    marks = [f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="#dc2626" stroke-width="3"/>' for x, y in found]
    if len(found) == 2:
        (x1, y1), (x2, y2) = found
        marks.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#dc2626" stroke-width="3"/>')
    return marks
