"""Token buckets: how often something may happen, with a burst."""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class TokenBucket:
    """Lets `per_s` things happen each second, and `burst` at once.

    Attributes:
        wait_s: after a refusal, how long until the next one would be let through.
    """

    per_s: float
    burst: float
    wait_s: float = 0.0
    _level: float = attrs.field(init=False)
    _at: float = attrs.field(default=float("-inf"), init=False)

    def __attrs_post_init__(self) -> None:
        self._level = self.burst

    def take(self, now: float) -> bool:
        """Whether one more may happen now; `now` may be any clock, in seconds."""
        if self._at != float("-inf"):
            self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.per_s)
        self._at = now
        if self._level >= 1:
            self._level -= 1
            return True
        self.wait_s = (1 - self._level) / self.per_s
        return False

    def give_back(self) -> None:
        """What was let through last does not count."""
        self._level = min(self.burst, self._level + 1)
