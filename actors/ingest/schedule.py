"""When a source is asked: a cron expression in a time zone, or `@every 5s`; and what becomes of missed runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Literal
from zoneinfo import ZoneInfo

import attrs
from cronsim import CronSim, CronSimError

Missed = Literal["run_once", "skip", "all"]

EVERY_S_MIN = 0.1
EVERY_S_MAX = 31 * 86_400.0
MISSED_RUNS = 100  # with "all", at most this many are caught up: the newest
LATE_S = 60.0  # a run that is late by less, and by less than a tenth of the interval, is not missed

_EVERY = re.compile(r"@every\s+([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class InvalidSchedule(ValueError):
    """The text is no schedule, or the zone no time zone."""


@attrs.frozen
class Schedule:
    """A rule for due times; `text` is what was configured.

    Cron times are wall clock times of `zone`. Across a change to or from daylight saving they do what Debian's cron
    does: a time that is skipped runs right after the gap, a time that comes twice runs once, and `*` hours or minutes
    run as often as time passes.

    Attributes:
        every_s: the interval, or None for a cron expression.
        cron: the expression.
    """

    text: str
    every_s: float | None
    cron: str = ""
    zone: tzinfo = UTC

    @classmethod
    def parse(cls, text: str, timezone: str = "UTC") -> Schedule:
        """Read a schedule. Raises: InvalidSchedule."""
        zone = _zone(timezone)
        if text.startswith("@") and text not in _NAMED:
            found = _EVERY.fullmatch(text)
            every_s = float(found[1]) * _SECONDS[found[2]] if found else 0.0
            if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
                raise InvalidSchedule(
                    f"schedule {text!r}; write `@every 1s` (ms, s, m, h or d; {EVERY_S_MIN} s to 31 d), "
                    f"{', '.join(_NAMED)}, or five cron fields"
                )
            return cls(text, every_s, zone=zone)
        cron = _NAMED.get(text, text)
        if len(cron.split()) != 5:
            raise InvalidSchedule(
                f"schedule {text!r} has {len(cron.split())} fields; write five cron fields such as `*/5 * * * *`, "
                "or `@every 5s`"
            )
        try:
            CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise InvalidSchedule(
                f"schedule {text!r}: {error}; write five cron fields such as `*/5 * * * *`, or `@every 5s`"
            ) from None
        return cls(text, None, cron, zone)

    def after(self, due: float, now: float | None = None) -> float:
        """The first due time that follows `due` and, with `now`, is not over then (wall clock, seconds).

        It is computed from due times only, so it does not drift.

        Raises: InvalidSchedule when a cron expression never comes true again (such as 31 February).
        """
        if self.every_s is not None:
            over = 0.0 if now is None else max(0.0, now - due) // self.every_s
            return due + self.every_s * (over + 1)
        for found in self._times(due if now is None else max(due, now)):
            return found
        raise InvalidSchedule(f"schedule {self.text!r} has no due time within 50 years")

    def between(self, due: float, now: float, most: int) -> list[float]:
        """The due times from `due`, which is one, to `now`: the newest `most`, oldest first."""
        if now <= due:
            return [due]
        if self.every_s is not None:
            count = int((now - due) // self.every_s)
            return [due + self.every_s * n for n in range(max(0, count + 1 - most), count + 1)]
        # Backwards from just after now, so that a long time costs no more than a short one.
        newest = list(islice((at for at in self._times(now + 1, reverse=True) if at <= now), most))
        found = sorted(at for at in newest if at > due)
        return found if len(found) >= most else [due, *found]

    def due_run(self, due: float, now: float, missed: Missed) -> float | None:
        """Which run to make at `now` when the one at `due` has not been made.

        Its due time: `due` itself, or a later one that stands for it; None when missed runs are skipped and this one
        is missed.
        """
        if missed == "all":
            return self.between(due, now, MISSED_RUNS)[0]
        (newest,) = self.between(due, now, 1)
        if missed == "run_once":
            return newest
        late_s = min(LATE_S, (self.after(newest) - newest) / 10)
        return newest if now - newest <= late_s else None

    def _times(self, start: float, *, reverse: bool = False) -> Iterator[float]:
        iterator = CronSim(self.cron, datetime.fromtimestamp(start, self.zone), reverse=reverse)
        for at in iterator:
            yield at.timestamp()


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # the iterator knows that it has no daylight saving
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise InvalidSchedule(
            f'timezone {name!r} is unknown; write a name of the IANA database such as "Europe/Berlin"'
        ) from None
