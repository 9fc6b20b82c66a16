"""When a source is asked: a cron expression in UTC, or `@every 5s`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import attrs
from cronsim import CronSim, CronSimError

_EVERY = re.compile(r"@every\s+([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
EVERY_S_MIN = 0.1
EVERY_S_MAX = 31 * 86_400.0


class InvalidSchedule(ValueError):
    """The text is no schedule."""


@attrs.frozen
class Schedule:
    """A rule for due times; `text` is what was configured.

    Attributes:
        every_s: the interval, or None for a cron expression.
    """

    text: str
    every_s: float | None

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read a schedule. Raises: InvalidSchedule."""
        if text.startswith("@"):
            found = _EVERY.fullmatch(text)
            every_s = float(found[1]) * _SECONDS[found[2]] if found else 0.0
            if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
                raise InvalidSchedule(
                    f"schedule {text!r}; write `@every 1s` (ms, s, m, h or d; {EVERY_S_MIN} s to 31 d) "
                    "or five cron fields"
                )
            return cls(text, every_s)
        try:
            CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise InvalidSchedule(
                f"schedule {text!r}: {error}; write five cron fields such as `*/5 * * * *`, or `@every 5s`"
            ) from None
        return cls(text, None)

    def after(self, due: float, now: float) -> float:
        """The first due time that follows `due` and is not over at `now` (wall clock, seconds).

        Missed times collapse into one, so a machine that slept does not catch up tick by tick.

        Raises: InvalidSchedule when a cron expression never comes true again (such as 31 February).
        """
        if self.every_s is not None:
            missed = max(0.0, now - due) // self.every_s
            return due + self.every_s * (missed + 1)
        try:
            return next(CronSim(self.text, datetime.fromtimestamp(max(due, now), UTC))).timestamp()
        except StopIteration:
            raise InvalidSchedule(f"schedule {self.text!r} has no due time within 50 years") from None
