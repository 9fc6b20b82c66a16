"""Too much of what is allowed: messages, subscriptions, filters, connections, and clients that never read."""

from __future__ import annotations

import json
import time

import attrs
import pytest
import trio

from actors.protocol.limits import Limits
from actors.settings import ConsoleSettings, Settings
from runtime import Secret
from runtime.transport.config import TransportConfig
from tests.security.kit import QUIET, STRANGER, Socket, connect, exchange, get, service, socket, status, upgrade


async def test_a_flood_of_messages_gets_notices_and_then_4107_and_delays_nobody(autojump_clock):
    async with service() as server:
        async with (
            socket(server, peer=STRANGER, hello={}) as attacker,
            socket(server, hello={"subs": [{"s": "a", "filter": {}}]}) as other,
        ):
            for n in range(80):
                await attacker.say(t="unsub", id=n + 2, s="none")
            codes = []
            with trio.fail_after(1):
                while (taken := await attacker.next())[0] != 8:
                    codes += [json.loads(line)["code"] for line in taken[1].split(b"\n")]
            assert codes[:3].count(404) == 3
            assert codes.count(429) == 3
            assert taken[1][:2] == (4107).to_bytes(2, "big")

            started = trio.current_time()
            await other.say(t="pub", id=2, signal={"type": "t.a", "entity": "e", "data": 1})
            seen = []
            while {"ok", "sig"} - {message["t"] for message in seen}:
                seen += await other.messages()
            assert trio.current_time() - started < 0.1


async def test_subscriptions_beyond_the_bound_are_refused_and_the_others_stay(autojump_clock):
    async with service() as server, socket(server, hello={}) as attacker:
        answers = []
        for n in range(140):
            await attacker.say(t="sub", id=n + 2, s=f"s{n}", filter={"types": [f"t.x{n}"]})
            answers += [one for one in await attacker.messages() if one["t"] in {"subok", "err"}]
        assert [one["t"] for one in answers] == ["subok"] * 128 + ["err"] * 12
        assert {one["code"] for one in answers if one["t"] == "err"} == {413}


def nested(depth):
    where = {"f": "/data/x", "op": "exists"}
    for _ in range(depth):
        where = {"not": where}
    return {"where": where}


LEAF = {"f": "/data/x", "op": "exists"}
BOMBS = {
    "depth": nested(100),
    "nodes": {"where": {"all": [{"any": [LEAF] * 16}] * 16}},
    "children": {"where": {"all": [LEAF] * 200}},
    "patterns": {"types": ["a.b"] * 33},
    "long pattern": {"types": ["a" * 10_000]},
    "tokens": {"types": [".".join(["*"] * 64)]},
    "long string": {"where": {"f": "/data/x", "op": "eq", "v": "x" * 10_000}},
    "long pointer": {"where": {"f": "/data" + "/a" * 5_000, "op": "exists"}},
    "members": {"where": {"f": "/data/x", "op": "in", "v": list(range(2_000))}},
    "stars": {"types": ["*" * 128]},
    "canonical": {"where": {"all": [{"f": f"/data/{n}", "op": "prefix", "v": "x" * 250} for n in range(16)] * 3}},
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_a_filter_that_is_a_bomb_is_refused_at_once(autojump_clock, bomb):
    async with service() as server, socket(server, hello={}) as attacker:
        started = time.process_time()
        await attacker.say(t="sub", id=2, s="a", filter=bomb)
        (answer,) = await attacker.messages()
        assert (answer["t"], answer["code"], answer["slug"]) == ("err", 422, "bad_filter")
        assert time.process_time() - started < 2
        assert len(json.dumps(answer)) < 1_000


async def test_json_that_is_nested_too_deep_for_any_reader_is_a_bad_message(autojump_clock):
    async with service() as server, socket(server, hello={}) as attacker:
        await attacker.say(t="sub", id=2, s="a", filter=nested(300))
        assert (await attacker.messages())[0]["code"] == 400


async def test_filters_of_the_largest_size_do_not_make_publishing_slow(autojump_clock):
    async with service() as server, socket(server, hello={}) as attacker, socket(server, hello={}) as other:
        for n in range(100):
            types = [f"t.*.{n}x{m}.>" for m in range(31)] + ["t.>"]
            where = {"any": [{"f": f"/data/{n}/{m}", "op": "contains", "v": "y" * 200} for m in range(16)]}
            await attacker.say(t="sub", id=n + 2, s=f"s{n}", filter={"types": types, "where": where})
            assert (await attacker.messages())[0]["t"] == "subok"
        started = time.process_time()
        for n in range(20):
            await other.say(t="pub", id=n + 2, signal={"type": "t.a.b.c", "entity": "e", "data": {"x": ["y"] * 100}})
            assert (await other.messages())[0]["t"] == "ok"
        assert time.process_time() - started < 10


async def test_an_address_that_opens_too_many_gets_429_and_others_get_in(autojump_clock):
    limits = Limits(handshakes_burst=5)
    settings = Settings(sources_enabled=False, shards=1, limits=limits)
    async with service(settings) as server:
        streams = [await connect(server, STRANGER) for _ in range(8)]
        answers = []
        for stream in streams:
            await stream.send_all(upgrade())
            answers.append(await stream.receive_some())
        assert [status(answer) for answer in answers].count(429) >= 3
        (refused, *_) = [answer for answer in answers if status(answer) == 429]
        assert b"retry-after: 1\r\n" in refused
        async with socket(server, peer="198.51.100.1"):
            pass
        await trio.sleep(2)
        async with socket(server, peer=STRANGER):
            pass


async def test_a_user_with_too_many_connections_is_told_so(autojump_clock):
    limits = Limits(connections_per_user=3)
    async with service(Settings(sources_enabled=False, shards=1, limits=limits)) as server:
        async with (
            socket(server, peer=STRANGER, hello={}),
            socket(server, peer=STRANGER, hello={}),
            socket(server, peer=STRANGER, hello={}) as third,
            socket(server, peer=STRANGER) as fourth,
            socket(server, peer="198.51.100.1", hello={}),
        ):
            await fourth.say(t="hello", id=1)
            assert await fourth.closed() == 4009
            await third.say(t="ping")
            assert await third.messages() == [{"t": "pong"}]


async def test_no_more_connections_are_open_than_the_server_may_have(autojump_clock):
    async with service(config=TransportConfig(connections=50)) as server:
        streams = [await connect(server) for _ in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        assert status(await exchange(server, get())) == 503
        await streams[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert status(await exchange(server, get("/healthz", "Connection: close"))) == 200


async def test_a_connection_without_a_hello_is_closed_in_time(autojump_clock):
    async with service() as server, socket(server) as attacker:
        started = trio.current_time()
        assert await attacker.closed() == 4008
        assert trio.current_time() - started < 7


async def test_one_reader_in_twenty_stalls_and_the_others_get_everything_at_once(autojump_clock):
    readers, stalled, rounds = 38, 2, 60
    async with service() as server:
        async with trio.open_nursery() as nursery:
            seen = [0] * readers
            late = [0.0]
            published_at = {}

            async def read(number, *, task_status=trio.TASK_STATUS_IGNORED):
                async with socket(server, hello={"subs": [{"s": "a", "filter": {}}]}) as reader:
                    task_status.started()
                    while True:
                        for message in await reader.messages():
                            for signal in message.get("d", ()):
                                seen[number] += 1
                                assert signal["o"] == seen[number]
                                late[0] = max(late[0], trio.current_time() - published_at[signal["data"]["n"]])

            for number in range(readers):
                await nursery.start(read, number)
            stuck = []
            for _ in range(stalled):
                stream = await connect(server)
                one = await Socket(stream).open()
                await one.say(t="hello", id=1, subs=[{"s": "a", "filter": {}}])
                assert (await one.messages())[0]["t"] == "welcome"
                stuck.append(one)
            async with socket(server, hello={}) as publisher:
                for n in range(rounds):
                    published_at[n] = trio.current_time()
                    data = {"n": n, "x": "x" * 15_000}
                    await publisher.say(t="pub", id=n + 2, signal={"type": "t.a", "entity": "e", "data": data})
                    while (await publisher.messages())[0]["t"] != "ok":
                        pass
                    await trio.sleep(0.2)
            assert sum(stream.unread_bytes for stream in server.network.connections) < stalled * 70_000
            await trio.sleep(1)
            assert seen == [rounds] * readers
            assert late[0] < 0.1
            for one in stuck:
                assert await one.closed() == 4103
            nursery.cancel_scope.cancel()


async def test_strangers_who_guess_from_everywhere_keep_no_operator_out(autojump_clock):
    password = "correct horse battery"
    locked = attrs.evolve(QUIET, console=ConsoleSettings(passwords=(Secret(password),)))
    answers = []

    async def sign_in(server, guess, peer):
        body = json.dumps({"password": guess})
        head = get("/console/api/login", "x-heliograph-console: 1", f"Content-Length: {len(body)}", method="POST")
        return status(
            await exchange(server, head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body.encode(), peer=peer)
        )

    async def guess(server, peer):
        answers.extend([await sign_in(server, "wrong", peer) for _ in range(7)])

    async with service(locked) as server, trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(guess, server, f"198.51.{number // 250}.{number % 250}")
        await trio.lowlevel.checkpoint()
        for _ in range(3):
            with trio.fail_after(1):
                assert await sign_in(server, password, STRANGER) == 204
    assert sorted(answers) == [401] * 1_500 + [429] * 600


def test_the_limits_are_those_of_the_specification():
    given = attrs.asdict(QUIET.limits)
    assert {name: given[name] for name in SPECIFIED} == SPECIFIED


SPECIFIED = {
    "msg_bytes": 16_384,
    "subs": 128,
    "rate_messages": 100,
    "rate_window_ms": 10_000,
    "rate_burst": 50,
    "handshakes_per_s": 8,
    "handshakes_burst": 20,
    "handshakes_per_5_min": 300,
    "connections_per_user": 20,
    "hello_ms": 5_000,
    "backlog_bytes": 1_048_576,
    "backlog_ms": 5_000,
}
