"""How often an address may guess a password, and nobody else has to wait for that."""

from __future__ import annotations

import math
from collections import OrderedDict

from actors.handshakes import counted_address

TRIES = 5
MINUTE_S = 60.0
ADDRESSES = 65_536
_STEP_S = MINUTE_S / TRIES


class FailedTries:
    """Counts the wrong passwords of each address (of IPv6: of each network of 64 bits); times are of a monotonic clock.

    An address may be wrong five times at once, and once in 12 s after that (the generic cell rate algorithm). One that
    has not been wrong within a minute never waits, whatever others do: there is no limit of all together.

    The `ADDRESSES` that were wrong last are remembered, in 13 MB. Only a wrong password makes an entry, so one is
    forgotten before its time when as many *other* addresses were wrong after it within a minute, 1,092 in a second.
    Who has no more addresses than that gains nothing: N of them have 5·N tries at once and 5·N in a minute. Who has
    more is bounded by how many requests the server can answer.
    """

    def __init__(self) -> None:
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all five are there again; by the last wrong one

    def __len__(self) -> int:
        return len(self._free_at)

    def wait_s(self, peer: str, now: float) -> float:
        """For how long no password of this address is looked at; 0: the next one is."""
        free_at = self._free_at.get(counted_address(peer), -math.inf)
        return max(0.0, free_at - (TRIES - 1) * _STEP_S - now)

    def wrong(self, peer: str, now: float) -> None:
        """It was wrong once more."""
        address = counted_address(peer)
        self._free_at[address] = max(self._free_at.get(address, now), now) + _STEP_S
        self._free_at.move_to_end(address)
        if len(self._free_at) > ADDRESSES:
            self._free_at.popitem(last=False)

    def right(self, peer: str) -> None:
        """Who knows the password may mistype it again."""
        self._free_at.pop(counted_address(peer), None)

    def forget(self, now: float) -> None:
        """Those whose tries are all there again are like any other."""
        while self._free_at and next(iter(self._free_at.values())) <= now:
            self._free_at.popitem(last=False)
