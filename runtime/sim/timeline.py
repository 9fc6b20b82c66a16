"""A run as one HTML file: a lane for each node, actor and client, time from left to right, the contradiction in red."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from runtime.sim.faults import KINDS
from runtime.sim.simulate import Result
from runtime.sim.trace import Event

EVENTS_MAX = 4_000  # the newest; a browser draws more of them only slowly
_LANE, _LEFT, _STEP, _TOP = 26, 12, 14, 34

_FAULT, _GOOD, _OTHER = "#dc2626", "#059669", "#4b5563"
_KINDS = (  # as the legend explains them
    ("#2563eb", "a call or a request", ("call", "ask", "request")),
    ("#16a34a", "its answer, a delivery", ("answer", "told", "response", "delivered")),
    ("#9ca3af", "a turn", ("turn",)),
    ("#d1d5db", "the turn is let go", ("leave",)),
    ("#6366f1", "an instance begins or ends", ("begin", "end")),
    ("#a16207", "a write", ("write",)),
    ("#d97706", "its batch is submitted", ("submit",)),
    ("#ca8a04", "committed, durable", ("commit", "durable")),
    ("#92400e", "a sync", ("sync",)),
    ("#0d9488", "an effect leaves", ("effect",)),
    ("#c026d3", "an alarm", ("alarm",)),
    (_FAULT, "a fault, or no answer", ("not stored", "no answer", *KINDS)),
    ("#78716c", "a log line", ("log",)),
    (_OTHER, "anything else", ()),
)
_COLOURS = {what: colour for colour, _, whats in _KINDS for what in whats}
_LASTS_UNTIL = {
    "crash": "serves",
    "power cut": "serves",
    "partition": "healed",
    "disk full": "disk has room",
    "slow": "fast again",
    "slow reader": "it reads again",
    "clock drift": "clock runs well",
    "bit flip": "bits are right",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; background: #fff; color: #111 }}
pre {{ background: #f6f6f4; padding: 1rem; overflow-x: auto }}
.line {{ overflow-x: auto; border: 1px solid #ddd; display: flex }}
.line svg {{ flex: none }}
.lanes {{ position: sticky; left: 0; background: #fff; border-right: 1px solid #ddd }}
svg text {{ font: 11px system-ui, sans-serif; fill: #333 }}
ul {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; font-size: 12px }}
li::before {{ content: ""; display: inline-block; padding: .35em; border-radius: 50%; background: currentColor }}
li span {{ color: #333; margin-left: .4em }}
</style></head><body><h1>{title}</h1><div class="line">
<svg class="lanes" xmlns="http://www.w3.org/2000/svg" width="190" height="{height}">{names}</svg>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{marks}</svg>
</div><ul>{legend}</ul><pre>{text}</pre>
<script>
const line = document.querySelector(".line")
line.scrollLeft = {shown} - line.clientWidth / 2
</script></body></html>
"""


def timeline(result: Result) -> str:
    """The newest 4,000 events of a run as a page without anything from elsewhere. Hover over a mark to read it.

    Each event has a column of its own, so that what happened at one moment stays apart; the scale tells the time. What
    lasts (a node is down, a partition, a full disk) is a band. It opens where the contradiction is, or else at the end.
    """
    events = _shown(result)
    lanes = {who: at for at, who in enumerate(_lanes(events))}
    place = {event.number: (_LEFT + at * _STEP, _TOP + lanes[event.who] * _LANE) for at, event in enumerate(events)}
    width, height = _LEFT + (len(events) + 2) * _STEP, _TOP + len(lanes) * _LANE + 12
    names = [f'<text x="6" y="{_TOP + at * _LANE + 4}">{escape(who[:28])}</text>' for who, at in lanes.items()]
    parts = _bands(events, place, width)
    for at in lanes.values():
        y = _TOP + at * _LANE
        parts.append(f'<line x1="0" y1="{y}" x2="{width}" y2="{y}" stroke="#eee"/>')
    parts += [f'<text x="{_LEFT + at * _STEP}" y="14">{events[at].at:.3f} s</text>' for at in range(0, len(events), 8)]
    for event in events:
        x, y = place[event.number]
        if event.what in KINDS or event.what in {"start", "quiesce", "opened", "serves", "healed"}:
            colour = _FAULT if event.what in KINDS else _GOOD
            parts.append(f'<line x1="{x}" y1="20" x2="{x}" y2="{height}" stroke="{colour}" stroke-opacity=".35"/>')
        colour = _COLOURS.get(event.what, _OTHER)
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"><title>{escape(str(event))}</title></circle>')
    parts += _contradiction(result, place)
    second = result.failure.second if result.failure is not None else 0
    return _PAGE.format(
        title=escape(f"{result.scenario}, seed {result.seed}"),
        height=height,
        names="".join(names),
        width=width,
        marks="".join(parts),
        legend="".join(f'<li style="color: {colour}"><span>{escape(text)}</span></li>' for colour, text, _ in _KINDS),
        text=escape(result.explain()),
        shown=place.get(second, (width, 0))[0],
    )


def _shown(result: Result) -> Sequence[Event]:
    return [event for event in result.events if event.who != "disk" or event.what == "sync"][-EVENTS_MAX:]


def _lanes(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(event.who for event in events))


def _bands(events: Sequence[Event], place: dict[int, tuple[int, int]], width: int) -> list[str]:
    begun: dict[tuple[str, str], Event] = {}
    found: list[tuple[Event, int]] = []
    for event in events:
        for what, until in _LASTS_UNTIL.items():
            if event.what == until and (begin := begun.pop((event.who, what), None)) is not None:
                found.append((begin, place[event.number][0]))
        if event.what in _LASTS_UNTIL:
            begun.setdefault((event.who, event.what), event)
    found += [(begin, width) for begin in begun.values()]
    bands: list[str] = []
    for begin, end in found:
        x, y = place[begin.number]
        title = f"<title>{escape(begin.what)}, from {begin.at:.3f} s</title>"
        rect = (
            f'<rect x="{x}" y="{y - 9}" width="{end - x}" height="18" fill="{_FAULT}" fill-opacity=".12">{title}</rect>'
        )
        bands.append(rect)
    return bands


def _contradiction(result: Result, place: dict[int, tuple[int, int]]) -> list[str]:
    if result.failure is None:
        return []
    found = [place[number] for number in (result.failure.first, result.failure.second) if number in place]
    marks = [f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="#dc2626" stroke-width="3"/>' for x, y in found]
    if len(found) == 2:
        (x1, y1), (x2, y2) = found
        marks.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#dc2626" stroke-width="3"/>')
    return marks
