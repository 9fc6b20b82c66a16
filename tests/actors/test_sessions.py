"""What is of the whole server, whatever shard a client comes to: its session, its places, how often it may come."""

import json
from functools import partial

import pytest
import trio

from actors.app import app
from actors.connections import ConnectionManager
from actors.handshakes import counted_address
from actors.protocol.limits import Limits
from actors.resume import Session, Sessions
from actors.settings import AuthSettings, Settings
from actors.signals import Draft
from actors.stream import STREAM, shard_name
from runtime import Secret
from runtime.testing import start_server
from tests.security.kit import STRANGER, Socket, connect, socket, status, upgrade

SUBS = [{"s": "all", "filter": {}}]
TOKEN = "t" * 32


def serving(**settings):
    return start_server(app, settings=Settings(sources_enabled=False, **settings))


async def publish(server, count, size=10):
    for _ in range(count):
        drafts = tuple(Draft.of("a.b", "e", "x" * size) for _ in range(10))
        await server.env.broadcasters.get_by_name(STREAM).publish(drafts)


async def hello(ws, **fields):
    await ws.say(t="hello", id=1, **fields)
    welcome, *rest = await ws.messages()
    assert welcome["t"] == "welcome", welcome
    return welcome, rest


# Sessions.


@pytest.mark.parametrize("shards", [1, 2, 3])
async def test_an_older_socket_of_a_session_ends_once_the_newer_one_is_live(autojump_clock, shards):
    async with serving(shards=shards) as server, socket(server) as old, socket(server) as new:
        first, _ = await hello(old, subs=SUBS)
        second, rest = await hello(new, subs=SUBS, resume=first["resume"])
        assert (second["session"], second["resumed"]) == (first["session"], True)
        assert [message["t"] for message in rest] == ["live"]
        began = trio.current_time()
        assert await old.closed() == 4202
        assert trio.current_time() - began < 0.1
        await publish(server, 1)
        assert (await new.messages())[0]["b"] == 10


async def test_it_goes_on_until_the_newer_one_is_live_with_everything_but_not_longer_than_5_s(autojump_clock):
    async with serving() as server, socket(server) as old, socket(server) as new:
        await publish(server, 30, size=30_000)
        first, _ = await hello(old, subs=SUBS)
        subs = [{"s": "all", "filter": {}, "from": "earliest"}]
        await new.say(t="hello", id=1, resume=first["resume"], subs=subs)
        assert (await new.messages())[0]["t"] == "welcome"  # and then it reads nothing more
        await trio.sleep(4.5)
        await publish(server, 1)
        assert (await old.messages())[0]["b"] == 310, "it is served meanwhile"
        began = trio.current_time()
        assert await old.closed() == 4202
        assert 0.2 < trio.current_time() - began < 1


@pytest.mark.parametrize("shards", [1, 2])
async def test_an_eviction_does_not_keep_the_older_one(autojump_clock, shards):
    async with serving(shards=shards) as server, socket(server) as old, socket(server) as new:
        await publish(server, 30, size=30_000)
        first, _ = await hello(old, subs=SUBS)
        subs = [{"s": "all", "filter": {}, "from": "earliest"}]
        await new.say(t="hello", id=1, resume=first["resume"], subs=subs)
        assert (await new.messages())[0]["t"] == "welcome"
        for number in range(shards):
            await server.evict(server.env.shards.get_by_name(shard_name(number)))
        await publish(server, 1)
        assert await old.closed() == 4202


async def test_who_goes_on_twice_with_the_same_token_has_two_sockets(autojump_clock):
    async with serving() as server, socket(server) as old, socket(server) as one, socket(server) as other:
        first, _ = await hello(old, subs=SUBS)
        for ws in (one, other):  # such as a tab of a browser that was duplicated
            assert (await hello(ws, subs=SUBS, resume=first["resume"]))[0]["resumed"]
        assert await old.closed() == 4202
        await trio.sleep(6)
        await publish(server, 1)
        assert (await one.messages())[0]["b"] == (await other.messages())[0]["b"] == 10


async def test_a_socket_that_is_gone_ends_no_other(autojump_clock):
    async with serving() as server, socket(server) as old:
        await publish(server, 30, size=30_000)
        first, _ = await hello(old, subs=SUBS)
        async with socket(server) as new:
            subs = [{"s": "all", "filter": {}, "from": "earliest"}]
            await new.say(t="hello", id=1, resume=first["resume"], subs=subs)
            assert (await new.messages())[0]["t"] == "welcome"
        await trio.sleep(10)
        await publish(server, 1)
        assert (await old.messages())[0]["b"] == 310


def test_a_token_names_the_socket_that_it_goes_on_from():
    sessions = Sessions(b"k" * 32, valid_s=100)
    token = sessions.token(Session("s_1", 41), "ann", now=1_000)
    assert sessions.resumed(token, "ann", 1_100) == Session("s_1", 42)
    assert sessions.resumed(token, "bob", 1_000) is None
    assert sessions.resumed(token, "ann", 1_101) is None
    for other in (token.replace(".29.", ".2a."), token.replace("s_1", "s_2"), token + ".", token[:-1], "s_1.3f", "..."):
        assert other != token
        assert sessions.resumed(other, "ann", 1_000) is None


# Places.


async def greeted(server, answers, peer="127.0.0.1", **fields):
    """A connection that stays when it is welcomed."""
    async with socket(server, peer=peer) as ws:
        await ws.say(t="hello", id=1, **fields)
        opcode, payload = await ws.next()
        answers.append(int.from_bytes(payload[:2], "big") if opcode == 8 else 101)
        if opcode != 8:
            await trio.sleep_forever()


@pytest.mark.parametrize("shards", [1, 2, 5])
async def test_of_too_many_connections_of_a_user_exactly_so_many_stay(autojump_clock, shards):
    auth = AuthSettings(tokens=(Secret(TOKEN),))
    limits = Limits(connections_per_user=4)
    async with serving(shards=shards, auth=auth, limits=limits, streams=("more",)) as server:
        for _ in range(2):  # all at once, and once there are as many as there may be
            answers = []
            async with trio.open_nursery() as nursery:
                for _ in range(11):
                    nursery.start_soon(partial(greeted, server, answers, token=TOKEN))
                await trio.sleep(1)
                assert sorted(answers) == [101] * 4 + [4009] * 7
                nursery.cancel_scope.cancel()
            await trio.sleep(1)


async def test_the_places_of_other_shards_and_streams_count_also_after_an_eviction(autojump_clock):
    auth = AuthSettings(tokens=(Secret(TOKEN),))
    limits = Limits(connections_per_user=3)
    async with serving(shards=2, auth=auth, limits=limits, streams=("more",)) as server, trio.open_nursery() as nursery:
        answers = []
        for _ in range(2):
            nursery.start_soon(partial(greeted, server, answers, token=TOKEN))
        async with server.connect("/v1/streams/more", headers={"authorization": f"Bearer {TOKEN}"}) as ws:
            await ws.send_message('{"t":"hello","id":1}')
            assert '"welcome"' in await ws.get_message()
            await trio.sleep(1)
            for number in range(2):
                await server.evict(server.env.shards.get_by_name(shard_name(number)))
            with trio.move_on_after(1):
                await greeted(server, answers, token=TOKEN)
            assert answers == [101, 101, 4009]
        await trio.sleep(1)
        nursery.start_soon(partial(greeted, server, answers, token=TOKEN))
        await trio.sleep(1)
        assert answers[-1] == 101, "one has gone"
        nursery.cancel_scope.cancel()


async def test_a_shard_that_does_not_answer_sends_nobody_away_for_good(autojump_clock, monkeypatch):
    async def quota_used(self, holder, before):
        self.ctx.abort("gone")

    auth = AuthSettings(tokens=(Secret(TOKEN),))
    async with serving(shards=2, auth=auth) as server:
        with monkeypatch.context() as patch:
            patch.setattr(ConnectionManager, "quota_used", quota_used)
            async with socket(server) as ws:
                await ws.say(t="hello", id=1, token=TOKEN)
                assert (await ws.messages())[0]["code"] == 503
                assert await ws.closed() == 4110
        async with socket(server) as again:
            assert (await hello(again, token=TOKEN))[0]["t"] == "welcome"


# Handshakes.


async def tries(server, count, peer=STRANGER):
    """The statuses of so many upgrades of an address."""
    seen = []
    for _ in range(count):
        async with await connect(server, peer) as stream:
            seen.append(status((await Socket(stream).open()).answer))
    return seen


async def test_how_often_an_address_comes_is_counted_over_all_shards(autojump_clock):
    async with serving(shards=4, limits=Limits(handshakes_burst=5), streams=("more",)) as server:
        assert await tries(server, 12) == [101] * 5 + [429] * 7
        assert await tries(server, 5, "198.51.100.1") == [101] * 5
        async with await connect(server, STRANGER) as stream:
            await stream.send_all(upgrade(target="/v1/streams/more"))
            assert status(await stream.receive_some()) == 429
        await trio.sleep(10)
        assert await tries(server, 6) == [101] * 5 + [429]


async def test_the_addresses_of_one_network_of_ipv6_are_one(autojump_clock):
    async with serving(limits=Limits(handshakes_burst=5)) as server:
        seen = [status_ for n in range(8) for status_ in await tries(server, 1, f"2001:db8:1:2:{n:x}::{n:x}")]
        assert seen == [101] * 5 + [429] * 3
        assert await tries(server, 5, "2001:db8:1:3::1") == [101] * 5
        assert await tries(server, 3, "::ffff:198.51.100.7") + await tries(server, 3, "198.51.100.7") == [101] * 5 + [
            429
        ]


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:aa:bb:cc:dd", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(peer, counted):
    assert counted_address(peer) == counted


async def test_an_address_is_remembered_for_five_minutes_and_then_no_more(autojump_clock):
    limits = Limits(handshakes_burst=100, handshakes_per_s=100, handshakes_per_5_min=6)
    async with serving(limits=limits) as server:
        assert await tries(server, 8) == [101] * 6 + [429] * 2
        await trio.sleep(45)
        assert await tries(server, 2) == [429, 429]
        await trio.sleep(330)
        assert server.live_actors == 0
        assert await tries(server, 7) == [101] * 6 + [429]


async def test_who_goes_on_with_a_session_is_not_counted_in_the_long_run(autojump_clock):
    limits = Limits(handshakes_per_5_min=6)
    async with serving(limits=limits) as server:
        resume = None
        for _ in range(30):
            async with socket(server, peer=STRANGER) as ws:
                welcome, _ = await hello(ws, **({} if resume is None else {"resume": resume}))
                resume = welcome["resume"]
            await trio.sleep(1)
        assert 429 in await tries(server, 8)


async def test_an_address_is_refused_before_its_token_is_looked_at(autojump_clock):
    auth = AuthSettings(tokens=(Secret(TOKEN),))
    async with serving(limits=Limits(handshakes_burst=3), auth=auth) as server:
        seen = []
        for _ in range(6):
            async with await connect(server, STRANGER) as stream:
                await stream.send_all(upgrade("Authorization: Bearer wrong"))
                seen.append(status(await stream.receive_some()))
        assert seen == [401] * 3 + [429] * 3


async def test_a_ticket_is_not_used_up_by_a_shard_that_sends_its_clients_away(autojump_clock):
    auth = AuthSettings(tokens=(Secret(TOKEN),))
    async with serving(shards=2, auth=auth) as server:
        await server.env.shards.get_by_name(shard_name(0)).depart()
        for _ in range(2):
            got = await server.request("POST", "/v1/tickets", headers={"authorization": f"Bearer {TOKEN}"})
            ticket = json.loads(got.body)["ticket"]
            async with socket(server, f"Authorization: Ticket {ticket}", hello={}):
                pass
