"""Many filter groups: one write for each socket and flush, quiet groups in turn, nothing lost when it is too much."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
import trio

from actors import fanout, shard_groups
from actors.app import app
from actors.fanout import Delivery
from actors.filters import Filter
from actors.protocol.remembered import Remembered, Subscription
from actors.protocol.server import ServerMachine
from actors.session import Connection
from actors.settings import Settings
from actors.shard_groups import ShardGroups
from actors.signals import Draft, SignalTexts
from actors.stream import STREAM
from actors.tracing import DeliveryTraces
from runtime.testing import start_server

QUIET = Settings(sources_enabled=False)


class Writes:
    """The context of a shard, and its broadcaster: records what is written to whom."""

    def __init__(self) -> None:
        self.storage = self
        self.rows: dict[str, Any] = {}
        self.left: list[int] = []
        self.written: dict[Any, list[bytes]] = defaultdict(list)
        self.calls = 0
        self._work: list[Any] = []

    def send_all(self, sockets: Any, message: Any) -> None:
        self.calls += 1
        for ws in sockets:
            self.written[ws].append(message.frame)

    def start_soon(self, fn: Any, *args: Any) -> None:
        self._work.append((fn, args))

    def set_timeout(self, seconds: float, fn: Any) -> None:
        self._work.append((fn, ()))

    async def checkpoint(self) -> None: ...

    async def sync(self) -> None: ...

    def list(self, type_: Any, prefix: str) -> dict[str, Any]:
        return dict(self.rows)

    def put(self, key: str, value: Any, **_: Any) -> None:
        self.rows[key] = value

    def delete(self, key: str) -> None:
        del self.rows[key]

    def leave(self, groups: list[int]) -> None:
        self.left += groups

    async def run(self) -> None:
        while self._work:
            fn, args = self._work.pop(0)
            await fn(*args)


def shard(*memberships: tuple[int, ...]) -> tuple[Writes, ShardGroups, list[Connection]]:
    """A shard whose sockets 0, 1, … have live subscriptions of these groups."""
    writes = Writes()
    groups = ShardGroups(writes, writes, QUIET.limits, DeliveryTraces(writes, writes))  # type: ignore[arg-type]
    connections = [subscriber(groups, number, members) for number, members in enumerate(memberships)]
    return writes, groups, connections


def subscriber(groups: ShardGroups, number: int, members: tuple[int, ...]) -> Connection:
    subs = {f"s{n}": Subscription(group, 0, live=True) for n, group in enumerate(members)}
    machine = ServerMachine(QUIET.limits, Remembered(subs=subs))
    connection = Connection(number, machine, groups.measures)  # type: ignore[arg-type]
    for sub in subs.values():
        groups.add_subscriber(sub.group, 0)
        groups.join(connection, sub.group)
    return connection


def delivered(written: list[bytes]) -> list[int]:
    """The groups whose frames are in what was written."""
    texts = b"".join(written).split(b'{"t":"sig","g":')[1:]
    return [int(text.partition(b",")[0]) for text in texts]


def delivery(*groups: int, upto: int = 1) -> Delivery:
    return Delivery(groups, (upto - 1,) * len(groups), upto, (SignalTexts(b'{"o":%d}' % upto),))


async def test_a_connection_in_several_groups_is_written_to_once_a_flush() -> None:
    writes, groups, _ = shard((1,), (1, 2, 3), (3, 1, 2), (2,), (1, 1), (4,), (4, 5))
    groups.take([delivery(1, 2, 3), delivery(5), delivery(3, upto=2)])
    await writes.run()
    assert {ws: len(frames) for ws, frames in writes.written.items()} == dict.fromkeys((0, 1, 2, 3, 4, 6), 1)
    seen = {ws: delivered(frames) for ws, frames in writes.written.items()}
    assert seen == {0: [1], 1: [1, 2, 3, 3], 2: [1, 2, 3, 3], 3: [2], 4: [1], 6: [5]}


async def test_sockets_with_the_same_groups_share_one_write() -> None:
    writes, groups, _ = shard(*[(1,)] * 60, *[(1, 2)] * 60)
    groups.take([delivery(1, 2)])
    await writes.run()
    assert len(writes.written) == 120
    assert writes.calls == 2


async def test_who_leaves_a_group_gets_no_more_of_it() -> None:
    writes, groups, (both, one) = shard((1, 2), (1,))
    groups.drop(both, [both.machine.state.subs["s0"]])
    groups.take([delivery(1, 2)])
    await writes.run()
    assert {ws: delivered(frames) for ws, frames in writes.written.items()} == {0: [2], 1: [1]}
    groups.drop(one, one.machine.state.subs.values())
    groups.drop(both, [both.machine.state.subs["s1"]])
    assert writes.left == [1, 2]
    groups.take([delivery(1, 2, upto=2)])
    assert writes.left == [1, 2, 1, 2]


async def test_more_groups_than_one_piece_of_a_flush(monkeypatch: Any) -> None:
    monkeypatch.setattr(shard_groups, "FLUSH_GROUPS", 3)
    writes, groups, _ = shard(*[(n,) for n in range(10)], tuple(range(10)))
    groups.take([delivery(*range(10))])
    await writes.run()
    assert [delivered(writes.written[n]) for n in range(10)] == [[n] for n in range(10)]
    assert delivered(writes.written[10]) == list(range(10))


async def test_the_places_of_many_groups_take_few_rows() -> None:
    numbers = tuple(range(1_000))
    writes, groups, (one,) = shard(numbers)
    groups.take([delivery(*numbers)])
    await writes.run()
    assert len(writes.rows) == 4
    again = ShardGroups(writes, writes, QUIET.limits, DeliveryTraces(writes, writes))  # type: ignore[arg-type]
    again.restore([one.machine.state])
    assert {again[number].cursor for number in numbers} == {1}
    groups.drop(one, one.machine.state.subs.values())
    await writes.run()
    assert writes.rows == {}


def own_filters(first: int, count: int) -> list[dict[str, Any]]:
    return [{"s": f"s{n}", "filter": {"types": ["price.>", f"!never.n{n}"]}} for n in range(first, first + count)]


async def test_quiet_groups_are_moved_in_turn_and_not_all_at_once(autojump_clock: Any, peer: Any) -> None:
    limits = Settings().limits
    async with start_server(app, settings=QUIET) as server:
        moved: list[tuple[float, int, int]] = []

        async def read(n: int) -> None:
            async with peer(server, {"subs": own_filters(n * limits.subs, limits.subs)}) as p:
                while True:
                    message = await p.receive()
                    if message["t"] == "sig":
                        assert message["d"] == []
                        moved.append((trio.current_time(), message["g"], message["b"]))
                        if message["g"] % 128 == 1:  # silent ones are closed
                            await p.ws.send_message('{"t":"ping"}')

        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(read, n)
            await trio.sleep(1)
            stream = server.env.broadcasters.get_by_name(STREAM)
            for _ in range(16):  # often enough to keep it in memory
                await stream.publish((Draft.of("other", "b", 1),))
                await trio.sleep(5)
            assert max(Counter(round(at) for at, _, _ in moved).values()) <= 500
            for group in range(1, 6 * limits.subs + 1):
                times = [at for at, moved_group, _ in moved if moved_group == group]
                assert len(times) == 3
                assert all(20 <= after - before <= 26 for before, after in pairwise(times))
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("most", [3, 100_000])
async def test_every_filter_of_its_own_gets_its_signals_whatever_ends(
    autojump_clock: Any, follower: Any, monkeypatch: Any, most: int
) -> None:
    monkeypatch.setattr(fanout, "FRAMES_MAX", most)
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        stream = server.env.broadcasters.get_by_name(STREAM)
        one = follower(server, 1)
        filters = {f"n{n}": {"where": {"f": "/data/n", "op": "gte", "v": n}} for n in range(0, 100, 2)}
        filters |= {f"e{n}": {"where": {"f": "/data/n", "op": "in", "v": [n, n + 1]}} for n in range(50)}
        for name, filter_ in filters.items():
            one.subscribe(name, Filter.parse(filter_))
        await nursery.start(one.run)
        await trio.sleep(1)
        values: list[int] = []
        for how in ("", "evict", "abort", "shards"):
            match how:
                case "evict":
                    await server.evict(stream)
                case "abort":
                    server.abort(stream)
                case "shards":
                    for number in range(QUIET.shards):
                        shard_ = server.env.shards.get_by_name(f"shard-{number}")
                        await shard_.compare((), ())
                        await server.evict(shard_)
            batch = [(len(values) * 7 + 13 * at) % 101 for at in range(30)]
            stream = server.env.broadcasters.get_by_name(STREAM)
            await stream.publish(tuple(Draft.of("a", "b", {"n": n}) for n in batch))
            values += batch
            await trio.sleep(3)
            for name, filter_ in filters.items():
                matches = Filter.parse(filter_).matches
                signals = [{"type": "a", "entity": "b", "data": json.loads(f'{{"n":{n}}}')} for n in values]
                assert one.offsets[name] == [at for at, signal in enumerate(signals, 1) if matches(signal)]
        assert not one.gaps
        nursery.cancel_scope.cancel()
