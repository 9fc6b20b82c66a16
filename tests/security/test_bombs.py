"""Values that announce much, nest deeply, or are slow to read: they are refused at once, and nobody else notices."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc

import msgpack
import pytest
import trio

from tests.security.kit import exchange, frame, get, service, socket, status

PACKED = "Sec-WebSocket-Protocol: signals.v1.msgpack"


def field(value: bytes, name: bytes = b"x") -> bytes:
    """A `ping` with one more field, whose value is these bytes."""
    return b"\x82\xa1t\xa4ping" + bytes([0xA0 | len(name)]) + name + value


ANNOUNCED = {
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a text of four gigabytes": b"\xdb\xff\xff\xff\xff",
    "bytes of four gigabytes": b"\xc6\xff\xff\xff\xff",
    "an extension of four gigabytes": b"\xc9\xff\xff\xff\xff\x01",
    "an array of arrays of four billion": b"\xdd\xff\xff\xff\xff" * 3_000,
    "a map in the place of a key": b"\x81\xdf\xff\xff\xff\xff",
    "nested 16,000 deep": b"\x91" * 16_000,
    "nested 16,000 deep, and whole": b"\x91" * 16_000 + b"\x00",
    "maps nested 4,000 deep": b"\x81\xa1a" * 4_000 + b"\x00",
    "the type that is none": b"\xc1",
}
REFUSED = {
    "bytes": b"\xc4\x03abc",
    "an extension of one byte": b"\xd4\x01a",
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "a timestamp of 96 bits": b"\xc7\x0c\xff" + bytes(12),
    "an extension that is no timestamp of any length": b"\xc7\x05\xff" + bytes(5),
    "a key that is a number": b"\x81\x01\x02",
    "a key that is null": b"\x81\xc0\x02",
    "a key that is an array": b"\x81\x90\x02",
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "numbers whose hashes are all the same": b"\xde"
    + struct.pack("!H", 1_000)
    + b"".join(b"\xcf" + struct.pack("!Q", n * (2**61 - 1)) + b"\x00" for n in range(1, 9)) * 125,
    "an integer beyond 2⁵³": b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    "not a number": b"\xcb" + struct.pack("!d", float("nan")),
    "infinity": b"\xcb" + struct.pack("!d", float("inf")),
    "a text that is no UTF-8": b"\xa2\xff\xfe",
    "a surrogate": b"\xa3\xed\xa0\x80",
}


@pytest.mark.parametrize("bomb", [*ANNOUNCED.values(), *REFUSED.values()], ids=[*ANNOUNCED, *REFUSED])
async def test_packed_values_that_are_bombs_are_refused_at_once(autojump_clock, bomb):
    async with service() as server, socket(server, PACKED) as attacker, socket(server, hello={}) as other:
        await attacker.send(frame(msgpack.packb({"t": "hello", "id": 1}), opcode=2))
        assert msgpack.unpackb((await attacker.next())[1])["t"] == "welcome"
        tracemalloc.start()
        started = time.process_time()
        await attacker.send(frame(field(bomb)[:16_384], opcode=2))
        answer = msgpack.unpackb((await attacker.next())[1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (answer["t"], answer["code"]) == ("err", 400)
        assert len(answer["msg"]) < 500
        assert peak < 4_000_000, peak
        assert time.process_time() - started < 2
        await attacker.send(frame(b'{"t":"ping"}'))
        while (following := (await attacker.next())[1]) != b'{"t":"pong"}':  # it may go on
            assert msgpack.unpackb(following)["code"] == 400, "what follows a length that overflows is a value"
        await other.say(t="ping")
        assert await other.messages() == [{"t": "pong"}]


async def test_many_small_values_in_one_frame_are_bad_messages_and_then_the_end(autojump_clock):
    async with service() as server, socket(server, PACKED) as attacker:
        await attacker.send(frame(msgpack.packb({"t": "hello", "id": 1}), opcode=2))
        await attacker.next()
        await attacker.send(frame(b"\xc0" * 16_384, opcode=2))
        assert await attacker.closed() == 4001


TEXTS = {
    "a number of 10,000 digits": "9" * 10_000,
    "a fraction of 10,000 digits": "0." + "9" * 10_000 + "e400",
    "an exponent of 10,000 digits": "1e" + "9" * 10_000,
    "arrays nested 8,000 deep": "[" * 8_000 + "]" * 8_000,
    "objects nested 2,000 deep": '{"a":' * 2_000 + "1" + "}" * 2_000,
    "arrays that never end": "[" * 16_000,
    "a text that never ends": '"' + "x" * 16_000,
    "a key twice": '{"a":1,"a":2}',
    "half a surrogate": '"\\ud800"',
    "not a number": "NaN",
}


@pytest.mark.parametrize("bomb", TEXTS.values(), ids=TEXTS)
async def test_texts_that_are_bombs_are_refused_at_once(autojump_clock, bomb):
    async with service() as server, socket(server, hello={}) as attacker:
        started = time.process_time()
        await attacker.send(frame(f'{{"t":"ping","x":{bomb}}}'.encode()[:16_384]))
        (answer,) = await attacker.messages()
        assert (answer["t"], answer["code"]) == ("err", 400)
        assert len(json.dumps(answer)) < 1_000
        body = f'{{"type":"t.a","entity":"e","data":{bomb}}}'.encode()
        posted = get("/v1/signals", f"Content-Length: {len(body)}", "Connection: close", method="POST") + body
        assert status(await exchange(server, posted)) == 400
        assert status(await exchange(server, get(f"/v1/history?filter={bomb[:3_000]}", "Connection: close"))) in {
            400,
            422,
        }
        assert time.process_time() - started < 2


async def test_objects_of_very_many_keys_are_read_in_time(autojump_clock):
    """Python's hashes of texts are keyed at random, so nobody can choose keys that collide."""
    async with service() as server, socket(server, hello={}) as other:
        started = time.process_time()
        keys = ",".join(f'"{n:x}":{n}' for n in range(5_000))
        body = f'{{"type":"t.a","entity":"e","data":{{{keys}}}}}'.encode()
        posted = get("/v1/signals", f"Content-Length: {len(body)}", "Connection: close", method="POST") + body
        assert status(await exchange(server, posted)) in {201, 413}
        for _ in range(8):
            await other.say(t="sub", id=2, s="a", filter=dict.fromkeys(map(str, range(500)), 1))
            assert (await other.messages())[0]["code"] in {400, 422}
        assert time.process_time() - started < 3


async def test_queries_of_very_many_fields_are_bounded(autojump_clock):
    async with service() as server:
        target = "/v1/history?" + "&".join(f"a{n}=1" for n in range(1_200))
        assert status(await exchange(server, get(target[:7_900], "Connection: close"))) in {200, 400}
        assert status(await exchange(server, get(target + "&b=" * 300, "Connection: close"))) == 431


async def test_event_sources_that_stall_keep_nobody_waiting_and_hold_little(autojump_clock):
    async with service() as server, trio.open_nursery() as nursery:
        seen = [0] * 19
        late = [0.0]
        published: list[float] = []

        async def read(number, *, task_status=trio.TASK_STATUS_IGNORED):
            async with server.stream("GET", "/v1/sse", headers={"accept": "text/event-stream"}) as response:
                task_status.started()
                text = ""
                async for piece in response.stream:
                    text += piece.decode()
                    *blocks, text = text.split("\n\n")
                    for block in blocks:
                        if "event: sig" in block:
                            data = json.loads(block.partition("data: ")[2].partition("\n")[0])
                            seen[number] += len(data["d"])
                            late[0] = max(late[0], trio.current_time() - published[seen[number] - 1])

        for number in range(len(seen)):
            await nursery.start(read, number)
        stalled = await server.network.connect("127.0.0.1", 8787)
        await stalled.send_all(get("/v1/sse"))
        async with socket(server, hello={}) as publisher:
            for n in range(60):
                published.append(trio.current_time())
                await publisher.say(t="pub", id=n + 2, signal={"type": "t.a", "entity": "e", "data": "x" * 15_000})
                while (await publisher.messages())[0]["t"] != "ok":
                    pass
                await trio.sleep(0.2)
        assert sum(stream.unread_bytes for stream in server.network.connections) < 2 * 70_000
        await trio.sleep(10)
        assert seen == [60] * 19
        assert late[0] < 0.1
        got = b""
        with trio.fail_after(60):
            try:
                while more := await stalled.receive_some():
                    got += more
            except trio.BrokenResourceError:
                pass
        assert got.count(b"event: sig") < 60, "it was cut off"
        nursery.cancel_scope.cancel()
