"""Requests that are too large, too slow, ambiguous or made to break what reads them."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
import trio

from tests.security.kit import HOST, connect, exchange, get, service, socket, status

POST = f"POST /v1/signals HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"


def post(body, *lines):
    head = POST + "".join(f"{line}\r\n" for line in lines) + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def test_500_slow_handshakes_end_in_time_hold_little_and_delay_nobody(autojump_clock):
    async with service() as server:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            slow = [await connect(server) for _ in range(500)]

            async def drip(stream):
                try:
                    for byte in get("/v1/stream", "X: " + "x" * 5_000):
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.5)
                except trio.BrokenResourceError:
                    pass

            async with trio.open_nursery() as nursery:
                for stream in slow:
                    nursery.start_soon(drip, stream)
                await trio.sleep(2)
                started = trio.current_time()
                async with socket(server, hello={}) as other:
                    await other.say(t="pub", id=2, signal={"type": "t.a", "entity": "e", "data": 1})
                    assert (await other.messages())[0]["t"] == "ok"
                assert trio.current_time() - started < 0.1
                held, _ = tracemalloc.get_traced_memory()
                assert (held - before) / len(slow) < 40_000
                await trio.sleep(5.5)  # five seconds for the head, two in which the refusal can be read
                assert [stream for stream in server.network.connections if not stream.closed] == []
                nursery.cancel_scope.cancel()
        finally:
            tracemalloc.stop()


async def test_slow_bodies_end_in_time(autojump_clock):
    async with service() as server:
        stream = await connect(server)
        await stream.send_all(f"{POST}Content-Length: 1000\r\n\r\n[".encode())
        started = trio.current_time()
        assert status(await stream.receive_some()) == 408
        assert trio.current_time() - started <= 60


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/healthz", "X: " + "x" * 9_000), 431),
        (get("/" + "x" * 9_000), 431),
        (get("/healthz", *(f"X-{n}: 1" for n in range(65))), 431),
        (get("/healthz", "X: " + "x" * 100_000), 431),
        (b"A" * 100_000, 431),
        (b"\r\n" * 50_000, 400),
    ],
    ids=["header", "target", "count", "flood", "no line", "empty lines"],
)
async def test_a_head_beyond_its_bounds_is_refused(autojump_clock, request_, expected):
    async with service() as server:
        assert status(await exchange(server, request_)) == expected


SECOND = b"GET /v1/sources HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        f"{POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        f"{POST}Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
        f"{POST}Content-Length: +4\r\n\r\n",
        f"{POST}Content-Length: 4, 5\r\n\r\n",
        f"{POST}Content-Length: -1\r\n\r\n",
        f"{POST}Transfer-Encoding: xchunked\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n",
        f"{POST}Transfer-Encoding : chunked\r\n\r\n",
        f"{POST}X: 1\r\n Transfer-Encoding: chunked\r\nContent-Length : 0\r\n\r\n",
        POST.replace("\r\n", "\n") + "Content-Length: 4\n\n",
        f"{POST}X: 1\nContent-Length: 0\r\n\r\n",
        f"{POST}X: a\rb\r\nContent-Length: 0\r\n\r\n",
        f"{POST}X: a\0b\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_request_whose_end_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    autojump_clock, head
):
    async with service() as server:
        answer = await exchange(server, head.encode() + b"0\r\n\r\n" + SECOND)
        assert status(answer) in {400, 501}
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n", b"1\nx\r\n0\r\n\r\n", b"5" * 40])
async def test_chunks_that_are_none_are_refused(autojump_clock, body):
    async with service() as server:
        answer = await exchange(server, f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + body + SECOND)
        assert status(answer) == 400
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e/app.py",
        "/assets/%2e%2e%2fapp.py",
        "/assets/..%5capp.py",
        "/assets/..",
        "/assets/.",
        "/assets/%00",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/....//app.py",
        "/../../etc/passwd",
        "//etc/passwd",
        "/client.js/../../../../etc/passwd",
        "/assets/" + "a" * 300,
    ],
)
async def test_no_path_leads_out_of_the_folder_of_the_page(autojump_clock, target):
    async with service() as server:
        answer = await exchange(server, get(target, "Connection: close"))
        assert status(answer) == 404
        assert b"import" not in answer
        assert b"root:" not in answer


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"[" * 200 + b"]" * 200,
        b'{"type":"t","entity":"e","data":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"type":"t","entity":"e","data":' + b"9" * 1_000_000 + b"}",
        b'{"type":"t","entity":"e","data":1e999999999}',
        b'{"type":"t","entity":"e","data":9007199254740993}',
        b'{"type":"t","entity":"e","data":{"a":1,"a":2}}',
        b'{"type":"t","type":"u","entity":"e","data":1}',
        b'{"type":"t","entity":"e","data":NaN}',
        b'{"type":"t","entity":"e","data":"\\ud800"}',
        b'{"type":"t","entity":"e","data":"\xff"}',
        b'"' + b"\\" * 1_000_001,
    ],
)
async def test_a_body_that_is_a_bomb_is_refused_at_once(autojump_clock, body):
    async with service() as server:
        started = time.process_time()
        answer = await exchange(server, post(body))
        assert status(answer) == 400
        assert len(answer) < 2_000, "what was sent is not sent back"
        assert time.process_time() - started < 5
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["slug"] == "bad_message"


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(autojump_clock):
    async with service() as server:
        answer = await exchange(server, f"{POST}Content-Length: 99999999999\r\n\r\n".encode())
        assert status(answer) == 413


@pytest.mark.parametrize("length", ["9" * 5_000, "9" * 20])
async def test_a_length_of_many_digits_is_refused(autojump_clock, length):
    async with service() as server:
        assert status(await exchange(server, f"{POST}Content-Length: {length}\r\n\r\n".encode())) in {400, 413}


async def test_a_body_of_many_small_chunks_is_bounded_too(autojump_clock):
    async with service() as server:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        answer = await exchange(server, f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 150)
        assert status(answer) == 413
