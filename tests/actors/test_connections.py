"""Connection managers: every matching signal once and in order, or an explicit gap, whatever ends in between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.app import app
from actors.filters import Filter
from actors.protocol.cursor import Cursor, Last
from actors.protocol.limits import Limits
from actors.settings import AuthSettings, Settings, StreamSettings
from actors.signals import Draft
from actors.stream import STREAM
from runtime import ActorError, Secret
from runtime.testing import RunningServer, start_server

QUIET = Settings(sources_enabled=False)
TOKEN = "0123456789abcdef0123456789abcdef"
TYPES = ("price.tick", "price.spike", "alert.high", "rare.one")
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "price": {"types": ["price.>"]},
    "even": {"where": {"f": "/data/even", "op": "eq", "v": True}},
    "rare": {"types": ["rare.>"]},
    "none": {"types": ["never.>"]},
}


class World:
    """A server, what was published to it, and who follows."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.log: dict[int, dict[str, Any]] = {}
        self.ids = 0

    @property
    def stream(self) -> Any:
        return self.server.env.broadcasters.get_by_name(STREAM)

    def shard(self, number: int) -> Any:
        return self.server.env.shards.get_by_name(f"shard-{number}")

    async def publish(self, *types: str) -> None:
        drafts: list[Draft] = []
        for type_ in types:
            self.ids += 1
            drafts.append(Draft.of(type_, "e", {"n": self.ids, "even": self.ids % 2 == 0}, id=f"p{self.ids}"))
        while True:
            try:
                published = await self.stream.publish(tuple(drafts))
                break
            except ActorError:
                continue  # its instance was aborted: a repeat is recognised by the ids
        for draft, receipt in zip(drafts, published.receipts, strict=True):
            value = {"type": draft.type, "entity": "e", "data": json.loads(draft.data_json)}
            assert self.log.setdefault(receipt.offset, value) == value

    def matching(self, name: str, after: int = 0) -> list[int]:
        matches = Filter.parse(FILTERS[name]).matches
        return [o for o in sorted(self.log) if o > after and matches(self.log[o])]

    async def evict(self, stub: Any) -> None:
        with contextlib.suppress(ActorError):  # not in memory: nothing to evict
            await self.server.evict(stub)


def run(scenario: Callable[[World], Any], **how: Any) -> None:
    """Run a scenario against a server in virtual time."""

    async def main() -> None:
        async with start_server(app, **{"settings": QUIET, **how}) as server:
            await scenario(World(server))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.lists(st.sampled_from(TYPES), min_size=1, max_size=4)),
    st.tuples(st.just("publish_at_once"), st.lists(st.sampled_from(TYPES), min_size=1, max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.02, 0.5, 1.5, 12.0, 31.0])),
    st.tuples(st.sampled_from(["evict_stream", "abort_stream"]), st.just(0)),
    st.tuples(st.sampled_from(["evict_shard", "abort_shard"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["drop", "pause", "read"]), st.integers(0, 2)),
    st.tuples(st.just("resubscribe"), st.integers(0, 2)),
)


@settings(max_examples=12)
@given(st.lists(ACTIONS, max_size=30), st.integers(0, 1_000))
def test_every_matching_signal_comes_once_and_in_order(
    follower: Any, actions: list[tuple[str, Any]], seed: int
) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            await world.publish("price.tick", "rare.one", "alert.high")
            followers = [follower(world.server, seed + n) for n in range(3)]
            for one in followers:
                for name, filter_ in FILTERS.items():
                    one.subscribe(name, Filter.parse(filter_), "earliest")
                await nursery.start(one.run)
            for what, how in actions:
                match what:
                    case "publish":
                        await world.publish(*how)
                    case "publish_at_once":
                        nursery.start_soon(world.publish, *how)
                    case "wait":
                        await trio.sleep(how)
                    case "evict_stream":
                        await world.evict(world.stream)
                    case "abort_stream":
                        world.server.abort(world.stream)
                    case "evict_shard":
                        await world.evict(world.shard(how))
                    case "abort_shard":
                        world.server.abort(world.shard(how))
                    case "drop":
                        followers[how].drop()
                    case "pause":
                        followers[how].reading = trio.Event()
                    case "read":
                        followers[how].reading.set()
                    case "resubscribe":
                        cursor = followers[how].machine.since_of("price")
                        followers[how].unsubscribe("price")
                        followers[how].subscribe("price", Filter.parse(FILTERS["price"]), cursor)
            for one in followers:
                one.reading.set()
            await world.publish("alert.high")  # the end of a loss is noticed by what comes next
            await trio.sleep(150)
            for one in followers:
                assert not one.gaps
                assert not one.detected
                for name in FILTERS:
                    assert one.offsets[name] == world.matching(name), name
                    assert one.states[name] == "live"
                    assert one.machine.since_of(name).offset == max(world.log)
            nursery.cancel_scope.cancel()

    run(scenario)


async def test_a_slow_client_is_closed_at_its_limit_and_resumes_without_loss(
    autojump_clock: Any, follower: Any
) -> None:
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        world = World(server)
        slow, fast = follower(server, 1), follower(server, 2)
        for one in (slow, fast):
            one.subscribe("all", Filter.parse({}), "earliest")
            await nursery.start(one.run)
        await trio.sleep(1)
        slow.reading = trio.Event()
        big = Draft.of("big.one", "e", "x" * 60_000)
        late = 0.0
        for _ in range(40):
            before = trio.current_time()
            await world.stream.publish((big,))
            await fast.until("all", len(world.log) + 1)
            late = max(late, trio.current_time() - before)
            world.log[len(world.log) + 1] = {}
        assert late < 0.05
        assert fast.codes == []
        slow.reading.set()
        await trio.sleep(60)
        assert slow.codes[0] in (4103, 1006)
        for one in (slow, fast):
            assert one.offsets["all"] == list(range(1, 41))
            assert not one.gaps
            assert not one.detected
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("backlog_bytes", "closed"), [(100_000, True), (1_000_000, False)])
async def test_the_configured_backlog_decides_when_a_slow_client_is_closed(
    autojump_clock: Any, follower: Any, backlog_bytes: int, closed: bool
) -> None:
    settings = Settings(sources_enabled=False, shards=1, limits=Limits(backlog_bytes=backlog_bytes))
    async with start_server(app, settings=settings) as server, trio.open_nursery() as nursery:
        slow = follower(server, 1)
        slow.subscribe("all", Filter.parse({}), "now")
        await nursery.start(slow.run)
        await trio.sleep(1)
        slow.reading = trio.Event()
        for _ in range(6):
            await World(server).stream.publish((Draft.of("big.one", "e", "x" * 60_000),))
        await trio.sleep(1)
        slow.reading.set()
        await trio.sleep(60)
        assert bool(slow.codes) is closed
        assert slow.offsets["all"] == list(range(1, 7))
        nursery.cancel_scope.cancel()


async def test_what_retention_removed_is_told(autojump_clock: Any, peer: Any, follower: Any) -> None:
    keep = StreamSettings(retention_signals=10, retention_s=0)
    async with start_server(app, settings=Settings(sources_enabled=False, stream=keep)) as server:
        world = World(server)
        await world.publish(*["price.tick"] * 5)
        await trio.sleep(1)
        for _ in range(25):
            await world.publish("price.tick")
            await trio.sleep(0.1)
        bounds = await world.stream.bounds()
        assert (bounds.head, bounds.oldest) == (30, 21)
        async with trio.open_nursery() as nursery:
            failing, skipping = follower(server, 1), follower(server, 2)
            failing.subscribe("p", Filter.parse({}), Cursor(bounds.epoch, 3), "fail")
            skipping.subscribe("p", Filter.parse({}), Cursor(bounds.epoch, 3), "skip")
            for one in (failing, skipping):
                await nursery.start(one.run)
            await trio.sleep(1)
            assert [(gap.a, gap.b, gap.reason) for gap in failing.gaps] == [(3, 30, "retention")]
            assert [(gap.a, gap.b, gap.reason) for gap in skipping.gaps] == [(3, 20, "retention")]
            assert failing.offsets["p"] == []
            assert skipping.offsets["p"] == list(range(21, 31))
            await world.publish("price.tick")
            await trio.sleep(1)
            assert failing.offsets["p"] == [31]
            assert skipping.offsets["p"] == list(range(21, 32))
            nursery.cancel_scope.cancel()


async def test_a_cursor_of_another_epoch_is_told(autojump_clock: Any, follower: Any) -> None:
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        world = World(server)
        await world.publish("price.tick", "price.tick")
        failing, skipping = follower(server, 1), follower(server, 2)
        failing.subscribe("p", Filter.parse({}), Cursor("other", 1), "fail")
        skipping.subscribe("p", Filter.parse({}), Cursor("other", 1), "skip")
        for one in (failing, skipping):
            await nursery.start(one.run)
        await trio.sleep(1)
        assert [gap.reason for gap in failing.gaps + skipping.gaps] == ["epoch", "epoch"]
        assert failing.offsets["p"] == []
        assert skipping.offsets["p"] == [1, 2]
        nursery.cancel_scope.cancel()


async def test_last_counts_matching_signals(autojump_clock: Any, follower: Any) -> None:
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        world = World(server)
        await world.publish("rare.one", "rare.one")
        for _ in range(300):
            await world.publish(*["price.tick"] * 4)
        one = follower(server, 1)
        one.subscribe("r", Filter.parse(FILTERS["rare"]), Last(1))
        one.subscribe("p", Filter.parse(FILTERS["price"]), Last(3))
        one.subscribe("more", Filter.parse(FILTERS["rare"]), Last(50))
        await nursery.start(one.run)
        await trio.sleep(5)
        assert one.offsets == {"r": [2], "p": [1200, 1201, 1202], "more": [1, 2]}
        assert set(one.states.values()) == {"live"}
        nursery.cancel_scope.cancel()


async def test_a_quiet_group_is_moved_within_30_s(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        world = World(server)
        subs = [{"s": "q", "filter": {"types": ["never.>"]}}]
        async with peer(server, {"subs": subs}) as p:
            assert (await p.receive())["t"] == "live"
            await world.publish("price.tick")
            before = trio.current_time()
            frame = await p.receive()
            assert frame | {"g": 0} == {"t": "sig", "g": 0, "a": 0, "b": 1, "d": []}
            assert trio.current_time() - before <= 30
            await p.nothing_for(30)


async def test_nothing_happens_in_an_idle_service(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        world = World(server)
        async with peer(server, {"subs": [{"s": "q", "filter": {}}]}) as p:
            assert (await p.receive())["t"] == "live"
            await trio.sleep(20)
            assert server.live_actors == 0
            for _ in range(2):  # pings are answered without waking anybody
                await p.ws.send_message('{"t":"ping"}')
                assert await p.receive() == {"t": "pong"}
                assert server.live_actors == 0
                await trio.sleep(20)
            await world.publish("price.tick")
            assert [signal["o"] for signal in (await p.receive())["d"]] == [1]


async def test_hello_must_come_in_time(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server) as p:
            before = trio.current_time()
            assert (await p.closed())[0] == 4008
            assert 5 <= trio.current_time() - before <= 6.5


async def test_a_silent_client_is_closed(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server, {}) as p:
            before = trio.current_time()
            assert (await p.closed())[0] == 4105
            assert 60 <= trio.current_time() - before <= 61


async def test_a_session_is_resumed_by_its_token_alone(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server) as p:
            first = await p.ask("hello")
            assert first["resumed"] is False
        async with peer(server) as p:
            second = await p.ask("hello", resume=first["resume"])
            assert (second["resumed"], second["session"]) == (True, first["session"])
        for broken in (first["resume"][:-1] + "x", "s_1", "", "a.b.c", first["resume"].replace("s_", "s_0")):
            async with peer(server) as p:
                third = await p.ask("hello", resume=broken)
                assert third["resumed"] is False
                assert third["session"] != first["session"]


async def test_commands_are_carried_out_in_order(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server) as p:
            await p.send(t="hello", id=1)
            await p.send(t="sub", id=2, s="x", filter={})
            await p.send(t="sub", id=3, s="x", filter={})
            await p.send(t="unsub", id=4, s="x")
            await p.send(t="sub", id=5, s="x", filter={})
            await p.send(t="pub", id=6, signal={"type": "a", "entity": "b", "data": 1})
            seen = [await p.receive() for _ in range(9)]
            shown = [(message["t"], message.get("id") or message.get("code")) for message in seen]
            sig = ("sig", None)
            assert sig in shown
            shown.remove(sig)
            assert shown == [
                ("welcome", 1), ("subok", 2), ("live", None), ("err", 3),
                ("ok", 4), ("subok", 5), ("live", None), ("ok", 6),
            ]  # fmt: skip


async def test_a_message_over_its_limit_closes(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server, {}) as p:
            await p.ws.send_message("x" * 20_000)
            assert (await p.closed())[0] == 1009


async def test_limits_of_rates_spare_this_machine(autojump_clock: Any, peer: Any) -> None:
    limits = Limits(rate_burst=5, connections_per_user=1, handshakes_burst=2)
    settings_ = Settings(sources_enabled=False, limits=limits)
    async with start_server(app, settings=settings_) as server:
        async with peer(server, {}) as p, peer(server, {}), peer(server, {}):
            for _ in range(30):
                assert await p.ask("unsub", s="x")


async def test_limits_of_rates_and_counts_apply_to_users(autojump_clock: Any, peer: Any) -> None:
    settings_ = Settings(
        sources_enabled=False,
        shards=1,
        auth=AuthSettings(tokens=(Secret(TOKEN),)),
        limits=Limits(rate_burst=3, connections_per_user=2, handshakes_burst=3),
    )
    hello = {"token": TOKEN}
    async with start_server(app, settings=settings_) as server:
        async with peer(server, hello) as p, peer(server, hello):
            async with peer(server) as q:
                await q.send(t="hello", id=1, token=TOKEN)
                assert (await q.closed())[0] == 4009
            for n in range(1, 7):
                await p.send(t="unsub", id=n, s="x")
            answers = [(await p.receive())["code"] for _ in range(6)]
            assert answers[:3] == [404, 404, 404]
            assert answers[-3:] == [429, 429, 429]
            assert (await p.closed())[0] == 4107
        async with peer(server, hello):  # the others are gone: there is room again
            pass


async def test_handshakes_of_one_user_are_limited(autojump_clock: Any, peer: Any) -> None:
    settings_ = Settings(
        sources_enabled=False, shards=1, auth=AuthSettings(tokens=(Secret(TOKEN),)), limits=Limits(handshakes_burst=2)
    )
    async with start_server(app, settings=settings_) as server:
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for _ in range(2):
            async with peer(server, {}, headers={"authorization": f"Bearer {TOKEN}"}):
                pass
        refused = await server.request("GET", "/v1/stream", headers=headers)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("pages", [True, False])
async def test_catch_up_comes_in_bounded_pages(autojump_clock: Any, peer: Any, pages: bool) -> None:
    async with start_server(app, settings=QUIET) as server:
        world = World(server)
        size = 5_000 if pages else 10
        for _ in range(60):
            await world.stream.publish(tuple(Draft.of("a", "b", "x" * size) for _ in range(20)))
        async with peer(server, {"subs": [{"s": "x", "filter": {}, "from": "earliest"}]}) as p:
            frames = []
            while (frame := await p.receive())["t"] == "sig":
                frames.append(frame)
            assert frame["t"] == "live"
            assert [signal["o"] for one in frames for signal in one["d"]] == list(range(1, 1201))
            assert all(len(one["d"]) <= 500 and len(json.dumps(one)) < 90_000 for one in frames)
            assert len(frames) > (50 if pages else 2)
