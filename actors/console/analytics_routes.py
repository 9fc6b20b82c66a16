"""What the console says of hours and days: charts' lines, close codes, SDKs, and all of it as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from actors.analytics.analytics import DAY_S, HOUR_S, MINUTE_S, NAME, Past, Slot
from actors.console.answers import Ask, Invalid, choice
from actors.measures import SESSION_BOUNDS_S, quantile
from actors.protocol.codes import ErrorCode, close_name
from runtime import Response

_STEPS_S = {"hour": MINUTE_S, "day": 10 * MINUTE_S, "week": HOUR_S, "all": DAY_S}
_SPANS_S = {"hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S}
_NAMES = {  # of RFC 6455; 0 are those that were not told apart any more
    0: "others",
    1000: "normal",
    1001: "going away",
    1002: "protocol error",
    1005: "without a code",
    1006: "lost",
    1007: "invalid data",
    1009: "too big",
    1011: "internal error",
    1012: "restart",
}
_NO_ANALYTICS = ErrorCode(404, "no_analytics")


@attrs.frozen
class _Span:
    step_s: int
    since: int
    upto: int
    slots: tuple[Slot | None, ...]

    @property
    def closes(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for slot in self.slots:
            found.update(dict(slot.tally.closes) if slot is not None else {})
        return found

    @property
    def sdks(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for slot in self.slots:
            found.update(dict(slot.tally.sdks) if slot is not None else {})
        return found


async def _span(ask: Ask) -> _Span:
    """What is asked for; of a step before the first one that was counted nothing is known."""
    settings = ask.env.settings.console
    if not settings.has_analytics:
        raise Invalid(_NO_ANALYTICS, "console.analytics_days is 0, so that nothing is kept of connections")
    span = choice(ask.request, "span", tuple(_STEPS_S), "hour")
    step_s = _STEPS_S[span]
    upto = (int(ask.env.operator.now()) // step_s + 1) * step_s
    since = upto - _SPANS_S.get(span, settings.analytics_days * DAY_S)
    past = await ask.env.analytics.get_by_name(NAME).past(step_s, since)
    if span == "all" and past.slots:
        since = past.slots[0].at
    return _Span(step_s, since, upto, tuple(_filled(past, range(since, upto, step_s))))


def _filled(past: Past, steps: Iterable[int]) -> Iterator[Slot | None]:
    """A slot for each step: where nothing was reported, everybody stayed; None where it is not known whether."""
    found = {slot.at: slot for slot in past.slots}
    ahead = deque(past.slots)
    last = past.before
    for at in steps:
        if at in found:
            slot = ahead.popleft()
            stayed = 0 if last is None or slot.fresh else last.level
            last = slot
            yield attrs.evolve(slot, connections=max(slot.connections, stayed))
        else:
            lives_on = past.goes_on if not ahead else not ahead[0].fresh
            yield Slot(at=at, connections=last.level, level=last.level) if last is not None and lives_on else None


async def analytics(ask: Ask) -> dict[str, Any]:
    """The lines of a span, one value for each step."""
    span = await _span(ask)
    lines = [_figures(slot) for slot in span.slots]
    return {
        "step_ms": 1_000 * span.step_s,
        "from": 1_000 * span.since,
        "to": 1_000 * span.upto,
        "series": {
            "at": [1_000 * at for at in range(span.since, span.upto, span.step_s)],
            **{name: [line[name] for line in lines] for name in _FIGURES},
        },
        "close_codes": [
            {"code": code, "name": _NAMES.get(code) or close_name(code).replace("_", " "), "count": count}
            for code, count in span.closes.most_common()
        ],
        "sdks": [{"sdk": sdk, "count": count} for sdk, count in span.sdks.most_common()],
    }


async def table(ask: Ask) -> Response:
    """The same as CSV, for a spreadsheet: a row for each step, and a column for each close code and SDK."""
    span = await _span(ask)
    codes, sdks = sorted(span.closes), sorted(span.sdks)
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["from", *_FIGURES, *(f"close {code}" for code in codes), *(f"sdk {sdk}" for sdk in sdks)])
    for slot in span.slots:
        if slot is not None:
            figures, closes, named = _figures(slot), dict(slot.tally.closes), dict(slot.tally.sdks)
            begins = datetime.fromtimestamp(slot.at, UTC).isoformat().replace("+00:00", "Z")
            counts = [closes.get(code, 0) for code in codes] + [named.get(sdk, 0) for sdk in sdks]
            rows.writerow([begins, *(figures[name] for name in _FIGURES), *counts])
    headers = {"content-type": "text/csv; charset=utf-8", "cache-control": "no-store"}
    name = f"heliograph-{choice(ask.request, 'span', tuple(_STEPS_S), 'hour')}.csv"
    return Response(200, out.getvalue().encode(), {**headers, "content-disposition": f'attachment; filename="{name}"'})


_FIGURES = (
    "connections",
    "opened",
    "closed",
    "session_p50_s",
    "session_p99_s",
    "reconnects",
    "reconnects_per_client",
    "lag_p50_ms",
    "lag_p95_ms",
    "lag_p99_ms",
)


def _figures(slot: Slot | None) -> dict[str, float | None]:
    if slot is None:
        return dict.fromkeys(_FIGURES)
    tally = slot.tally
    clients = max(slot.connections, tally.opened - tally.reconnects)
    values: Sequence[float | None] = (
        slot.connections,
        tally.opened,
        tally.closed,
        _rounded(quantile(tally.sessions, 0.5, SESSION_BOUNDS_S), 1),
        _rounded(quantile(tally.sessions, 0.99, SESSION_BOUNDS_S), 1),
        tally.reconnects,
        round(tally.reconnects / clients, 3) if clients else None,
        *(_rounded(quantile(tally.lags, share), 5, 1_000) for share in (0.5, 0.95, 0.99)),
    )
    return dict(zip(_FIGURES, values, strict=True))


def _rounded(value: float | None, digits: int, times: int = 1) -> float | None:
    return None if value is None else round(times * value, digits)
