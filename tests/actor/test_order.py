"""Whatever actors do to each other, each runs one handler at a time, in the order its events came."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from runtime import Actor, App, Context, Namespace
from runtime.testing import start_server

NAMES = ("a", "b", "c")


class Player(Actor["Env"]):
    """Follows a script of steps; asserts that it has the turn whenever it runs."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.inside = 0
        self.arrived: list[int] = []
        self.counter = 0

    async def play(self, script: list[list[object]]) -> int:
        for kind, *rest in script:
            self._claim()
            match kind:
                case "put":
                    self.ctx.storage.put("k", self.counter)
                case "sleep":
                    self._release()
                    await self.ctx.sleep(float(str(rest[0])))
                    self._reclaim()
                case "call":
                    self._release()
                    await self.env.players.get_by_name(str(rest[0])).play(rest[1])
                    self._reclaim()
                case "burst":
                    stub = self.env.players.get_by_name(str(rest[0]))
                    calls = [stub.numbered(i) for i in range(4)]
                    self._release()
                    for call in calls:
                        await call
                    self._reclaim()
                case "sync":
                    self._release()
                    await self.ctx.storage.sync()
                    self._reclaim()
                case "hold":
                    await trio.lowlevel.checkpoint()
                case "section":
                    self._release()
                    await self.ctx.block_concurrency_while(lambda script=rest[0]: self._section(script))
                    self._reclaim()
                case "spawn":
                    self._release()
                    await self.ctx.start_soon(self.play, rest[0])
                    self._reclaim()
            self._release()
        return len(script)

    async def numbered(self, number: int) -> None:
        self.arrived.append(number)

    async def seen(self) -> list[int]:
        return self.arrived

    async def _section(self, script: list[list[object]]) -> None:
        before = self.counter
        for kind, *rest in script:
            if kind == "sleep":
                await self.ctx.sleep(float(str(rest[0])))
            else:
                self.ctx.storage.put("s", before)
            assert self.counter == before, "another event ran inside a critical section"

    def _claim(self) -> None:
        assert self.inside == 0, "two handlers had the turn at once"
        self.inside += 1
        self.counter += 1

    def _release(self) -> None:
        self.inside = 0

    def _reclaim(self) -> None:
        self._claim()


@attrs.frozen
class Env:
    players: Namespace[Player]


app = App(env=Env, routes={})

sleeps = st.tuples(st.just("sleep"), st.sampled_from([0, 0.5, 1]))
simple = st.one_of(sleeps, st.just(("put",)), st.just(("sync",)), st.just(("hold",)))
sections = st.tuples(st.just("section"), st.lists(st.one_of(sleeps, st.just(("put",))), max_size=3))
scripts = st.recursive(
    st.lists(st.one_of(simple, sections, st.tuples(st.just("burst"), st.sampled_from(NAMES))), max_size=4),
    lambda inner: st.lists(
        st.one_of(
            simple,
            st.tuples(st.just("call"), st.sampled_from(NAMES), inner),
            st.tuples(st.just("spawn"), inner),
            sections,
        ),
        max_size=4,
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), scripts), min_size=2, max_size=5))
def test_random_reentrant_calls_never_overlap_and_keep_the_order_of_each_stub(plays):
    async def main() -> None:
        async with start_server(app) as server:
            calls = [server.env.players.get_by_name(name).play(script) for name, script in plays]
            for call, (_, script) in zip(calls, plays, strict=True):
                assert await call == len(script)
            for name in NAMES:
                arrived = await server.env.players.get_by_name(name).seen()
                # Bursts may interleave; each one's own numbers come in order, so every prefix is consistent.
                for number in range(3):
                    assert _never_ahead(arrived, number)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def _never_ahead(arrived: list[int], number: int) -> bool:
    first = second = 0
    for seen in arrived:
        first += seen == number
        second += seen == number + 1
        if second > first:
            return False
    return True
