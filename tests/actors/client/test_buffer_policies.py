"""What happens to a full buffer is what its policy says, and what gave way is told."""

import anyio
import pytest

from actors.client import Cursor, Gap, Signal, SubscriptionFailed
from actors.client.buffer import Buffer
from tests.actors.client.conftest import signal
from tests.actors.client.test_client import client_of, offsets, take


async def begin(server, live):
    link = await server.accept()
    await link.welcome(head=0)
    link.send(live("px", 0))
    return link


async def test_drop_oldest_lets_the_oldest_give_way_to_one_gap(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=3, overflow="drop_oldest") as sub:
        link = await begin(server, live)
        for o in range(10):
            link.send(sig(o, o + 1, o + 1))
        await anyio.sleep(1)
        assert (sub.dropped, sub.waiting, client.stats.dropped) == (7, 4, 7)
        assert sub.cursor == Cursor("k3F9", 0)
        assert offsets(await take(sub, 4)) == [Gap(0, 7, "slow"), 8, 9, 10]
        assert sub.cursor == Cursor("k3F9", 9)
        link.send(sig(10, 20, *range(11, 17)))
        await anyio.sleep(1)
        assert offsets(await take(sub, 4)) == [Gap(10, 13, "slow"), 14, 15, 16]


async def test_the_gap_of_the_buffer_covers_gaps_of_the_server_that_gave_way_too(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=1, overflow="drop_oldest") as sub:
        link = await begin(server, live)
        link.send(sig(0, 2, 1), {"t": "gap", "s": "px", "a": 2, "b": 5, "reason": "slow"}, sig(5, 7, 6, 7))
        await anyio.sleep(1)
        assert offsets(await take(sub, 2)) == [Gap(0, 6, "slow"), 7]
        link.send(sig(7, 8, 8), {"t": "reset", "epoch": "new", "head": 2, "reason": "restored"})
        again = await link.receive()
        link.send(link.subok(again, epoch="new", head=2), live("px", 2, g=1), sig(2, 3, 3))
        await anyio.sleep(1)
        assert offsets(await take(sub, 2)) == [Gap(None, None, "epoch"), 3]


async def test_latest_replaces_what_waits_of_the_same_type_and_entity(server, live, autojump_clock):
    def frame(o, entity):
        return {"t": "sig", "g": 1, "a": o - 1, "b": o, "d": [signal(o, entity=entity)]}

    async with client_of(server) as client, client.subscribe(name="px", buffer=2, overflow="latest") as sub:
        link = await begin(server, live)
        link.send(frame(1, "a"), frame(2, "b"), frame(3, "a"), frame(4, "a"))
        await anyio.sleep(1)
        assert (sub.replaced, sub.dropped, sub.waiting) == (2, 0, 2)
        assert offsets(await take(sub, 2)) == [2, 4]
        link.send(frame(5, "a"), frame(6, "b"), frame(7, "c"))
        await anyio.sleep(1)
        assert offsets(await take(sub, 3)) == [Gap(4, 5, "slow"), 6, 7]
        assert client.stats.replaced == 2


def test_an_older_signal_of_a_backfill_does_not_replace_a_newer_one():
    def made(o):
        return Signal.from_value(signal(o))

    buffer = Buffer(9, "latest")
    buffer.put(made(7), Cursor("k3F9", 7))
    buffer.put_old(made(4))
    assert (buffer.take().o, len(buffer), buffer.replaced) == (7, 0, 1)


async def test_error_ends_the_subscription_after_what_it_has(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=3, overflow="error") as sub:
        link = await begin(server, live)
        link.send(sig(0, 5, *range(1, 6)))
        await anyio.sleep(1)
        assert (await link.receive())["t"] == "unsub"
        assert offsets(await take(sub, 5)) == [1, 2, 3, 4, 5]
        with pytest.raises(SubscriptionFailed, match="5 items wait for the application and 3 may"):
            await anext(sub)


async def test_with_ack_receive_the_cursor_moves_when_a_signal_arrives(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", ack="receive") as sub:
        link = await begin(server, live)
        link.send(sig(0, 5, 1, 2), sig(5, 9))
        await anyio.sleep(1)
        assert sub.cursor == Cursor("k3F9", 9)
        assert offsets(await take(sub, 2)) == [1, 2]
        assert sub.cursor == Cursor("k3F9", 9)


async def test_unknown_policies_are_named(server, autojump_clock):
    async with client_of(server) as client:
        with pytest.raises(ValueError, match="overflow is 'drop'; it is 'block', 'drop_oldest', 'latest' or 'error'"):
            client.subscribe(overflow="drop")
        with pytest.raises(ValueError, match="ack is 'sent'; it is 'taken' or 'receive'"):
            client.subscribe(ack="sent")
