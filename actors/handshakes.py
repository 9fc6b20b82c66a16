"""The actor that counts how often each address connects, whatever shard it comes to."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs
import trio

from actors.protocol.rate import TokenBucket
from runtime import Actor, Context, Timeout

if TYPE_CHECKING:
    from actors.env import Env

HANDSHAKES = "handshakes"
ADDRESSES_KEPT = 10_000
LONG_S = 300.0  # of the limit `handshakes_per_5_min`


@lru_cache(maxsize=ADDRESSES_KEPT)
def counted_address(peer: str) -> str:
    """What counts as one address: whoever has one of IPv6 has 2⁶⁴, so there it is the network of them."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((address, 64), strict=False))


@attrs.define(eq=False)
class _Tries:
    short: TokenBucket
    long: TokenBucket
    at: float = 0.0


class Handshakes(Actor["Env"]):
    """Lets an address connect so often in a second, and so often in five minutes.

    In memory only: a restart forgives.
    """

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._limits = env.settings.limits
        self._tries: OrderedDict[str, _Tries] = OrderedDict()  # in the order of `at`
        self._timeout: Timeout | None = None

    async def count(self, peer: str) -> int:
        """One more of an address; whole seconds to wait when there were too many, else 0."""
        now, peer = trio.current_time(), counted_address(peer)
        tries = self._tries.get(peer)
        if tries is None:
            limits = self._limits
            tries = self._tries[peer] = _Tries(
                TokenBucket(limits.handshakes_per_s, limits.handshakes_burst),
                TokenBucket(limits.handshakes_per_5_min / LONG_S, limits.handshakes_per_5_min),
            )
            if len(self._tries) > ADDRESSES_KEPT:
                self._tries.popitem(last=False)
        self._tries.move_to_end(peer)
        tries.at = now
        self._keep()
        refusals = [bucket.wait_s for bucket in (tries.short, tries.long) if not bucket.take(now)]
        return math.ceil(max(refusals)) if refusals else 0

    async def resumed(self, peer: str) -> None:
        """The last one of an address went on with its session: in five minutes it may do so as often as it likes."""
        if (tries := self._tries.get(counted_address(peer))) is not None:
            tries.long.give_back()

    async def settle(self) -> None:
        """The server goes down: nobody is counted any more."""
        self._tries.clear()
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    def _keep(self) -> None:
        """Nobody evicts this instance while it has somebody to remember."""
        if self._timeout is None:
            oldest = next(iter(self._tries.values()))
            self._timeout = self.ctx.set_timeout(oldest.at + LONG_S - trio.current_time(), self._forget)

    async def _forget(self) -> None:
        self._timeout = None
        now = trio.current_time()
        while self._tries and next(iter(self._tries.values())).at + LONG_S <= now:
            self._tries.popitem(last=False)
        if self._tries:
            self._keep()
