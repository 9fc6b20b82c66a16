"""A scenario of clients that show tokens: who has a newer one in time stays, and who has not does not come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

import attrs
import trio

from actors.app import app
from actors.client import ClientClosed, Cursor, SignalClient
from actors.protocol.codes import CloseCode
from actors.scenarios_clients import QUIET, Seen, Stream
from actors.settings import AuthSettings, JwtSettings, KeySettings
from actors.token_keys import TokenKey
from actors.web_token import sign
from runtime import Secret
from runtime.sim import SimulatedNode, World, scenario

_AUDIENCE = "the signals of a simulation"
_KID = "a"
_SECRET = "a secret that signs the tokens of a simulation"  # noqa: S105 -- of nobody
_SETTINGS = AuthSettings(
    jwt=JwtSettings(audience=_AUDIENCE, keys={_KID: KeySettings(algorithm="HS256", key=Secret(_SECRET))})
)
_NOT_LET_IN = {401, CloseCode.AUTH_FAILED}  # as an answer to the handshake, and after it
_CALM_S = 70.0  # a clock that was set is noticed within a minute, and clients come back


@attrs.define(eq=False)
class Issuer:
    """Whoever gives the users their tokens, by the clock of the server.

    Attributes:
        lasts_s: how long a token is valid. issued: how many each user was given.
    """

    node: SimulatedNode
    lasts_s: float
    issued: dict[str, int] = attrs.field(factory=dict[str, int])

    async def issue(self, user: str) -> str:
        """A token that is valid from now on."""
        self.issued[user] = self.issued.get(user, 0) + 1
        claims = {"sub": user, "aud": _AUDIENCE, "exp": self.ends, "cap": {"sub": [">"], "pub": [">"]}}
        return sign(claims, _KID, TokenKey.parse("HS256", _SECRET))

    @property
    def ends(self) -> float:
        """When a token of now ends."""
        return self.node.now() + self.lasts_s


async def _while_let_in(stream: Stream, name: str, use: Callable[[SignalClient], Awaitable[None]]) -> None:
    """Use a client to the end; with another one where the clock was set while its token was on its way."""
    while True:
        async with stream.client(name) as client:
            try:
                await use(client)
            except ClientClosed as closed:
                if closed.code not in _NOT_LET_IN:
                    raise
                stream.world.trace.note("not let in", name, closed.reason)
            else:
                return
        await trio.sleep(0.5)


async def _publish(stream: Stream, name: str) -> None:
    rng = stream.world.rng(name)
    left = list(stream.world.times(10))

    async def publish(client: SignalClient) -> None:
        while left:
            await trio.sleep(rng.uniform(0, 1.5))
            await stream.publish(client, f"{name}-{left[0]}", "price.tick", rng.choice(("btc", "eth")), None)
            del left[0]

    await _while_let_in(stream, name, publish)


async def _read(stream: Stream, name: str) -> None:
    """Take everything until the last signal of all; another client goes on from the cursor of the one before."""
    seen = stream.subscriber(name, lambda _, __: True)
    since: Cursor | Literal["earliest"] = "earliest"

    async def read(client: SignalClient) -> None:
        nonlocal since
        async with client.subscribe(since=since) as subscription:
            try:
                async for item in subscription:
                    seen.take(item)
                    if seen.done.is_set():
                        return
            finally:
                since = subscription.cursor or since

    await _while_let_in(stream, name, read)


@attrs.define(eq=False)
class Lapsing:
    """A client that has one token, and shows it for as long as it is let in.

    Attributes:
        ends: when that is over. over: it was sent away, and not let in again.
    """

    stream: Stream
    token: str
    ends: float
    over: trio.Event = attrs.field(factory=trio.Event)

    async def read(self) -> None:
        """Take everything until then. Raises: AssertionError: it must not come."""
        seen = Seen(self.stream.world, "lapses", lambda _, __: True, self.stream.by_id)

        def shown(_: str) -> str:
            return self.token

        async with attrs.evolve(self.stream, token=shown).client("lapses") as client:
            try:
                async with client.subscribe(since="earliest") as subscription:
                    async for item in subscription:
                        seen.take(item)
            except ClientClosed as closed:
                if closed.code not in _NOT_LET_IN:
                    raise
                self.stream.world.trace.note("not let in", "lapses", closed.reason)
        self.over.set()

    async def check(self, now: float) -> None:
        """Faults are over; a clock that was set back lets it read for longer. Raises: AssertionError."""
        with trio.move_on_after(max(0.0, self.ends - now) + _CALM_S):
            await self.over.wait()
        assert self.over.is_set(), f"its token has ended for {_CALM_S:g} s, and it is still let in"


@scenario
async def renewing(w: World) -> None:
    """Tokens that last for seconds: who renews them misses nothing and keeps its connection, who does not is sent away.

    Times of tokens follow the clock of the server, which is set and drifts: a token may have ended before it arrives.
    """
    node = await w.start_node(app, settings=attrs.evolve(QUIET, auth=_SETTINGS))
    issuer = Issuer(node, w.rng("options").choice((5.0, 10.0)))
    stream = Stream(w, node, token=lambda name: partial(issuer.issue, name))
    readers = ("ben", "eve")
    async with trio.open_nursery() as everybody:
        for name in readers:
            everybody.start_soon(_read, stream, name)
        lapses = Lapsing(stream, await issuer.issue("lapses"), issuer.ends)
        everybody.start_soon(lapses.read)
        async with trio.open_nursery() as busy:
            for name in ("anna", "carl"):
                busy.start_soon(_publish, stream, name)
        await w.quiesce()
        issuer.lasts_s = 20.0
        await trio.sleep(_CALM_S)
        await lapses.check(node.now())
        before = {name: (stream.clients[name].stats.sockets, issuer.issued[name]) for name in readers}
        await trio.sleep(2 * issuer.lasts_s)
        for name, (sockets, issued) in before.items():
            opened, renewed = stream.clients[name].stats.sockets - sockets, issuer.issued[name] - issued
            assert not opened, f"{name} connected {opened} times while nothing was wrong"
            assert renewed >= 2, f"{name} has renewed its token {renewed} times in the time of two"
        await stream.end()
