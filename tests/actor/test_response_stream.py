"""A response may come in chunks, while its actor goes on: bounded, in order, durable, and cancelled with its client."""

from __future__ import annotations

import attrs
import pytest
import trio

from runtime import Actor, App, Context, Namespace, Request, Response, ResponseStream
from runtime.testing import start_server


class Ticker(Actor["Env"]):
    """Answers with as much as its client reads."""

    backlog_bytes = 1_000

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []
        self.streams: list[ResponseStream] = []

    async def fetch(self, request: Request) -> Response:
        match request.path.rpartition("/")[2]:
            case "ticks":
                return Response(200, headers={"content-type": "text/plain"}, stream=self.ticks())
            case "large":
                return Response(200, stream=self.large())
            case "fails":
                return Response(200, stream=self.fails())
            case "text":
                return Response(200, stream=self.text())
            case "passed":
                response = await self.env.tickers.get_by_name("other").fetch(Request(path="/ticks"))
                return attrs.evolve(response, headers={"x-passed": "on"})
            case "read":
                response = await self.env.tickers.get_by_name("other").fetch(Request(path="/ticks"))
                return Response.text("".join([chunk.decode() async for chunk in response.stream]))
            case "bad-header":
                return Response(200, headers={"x": "a\nb"}, stream=self.ticks())
            case _:
                stream = self.ctx.response_stream(self.ended)
                stream.push(b"hello\n")
                self.streams.append(stream)
                return Response(200, stream=stream)

    async def ticks(self):
        try:
            for number in range(3):
                self.ctx.storage.put("ticks", number)
                yield f"{number}\n".encode()
                await self.ctx.sleep(1)
        finally:
            self.log.append(f"ticks end at {self.ctx.storage.get('ticks')}")

    async def large(self):
        try:
            for number in range(1_000):
                self.log.append(f"chunk {number}")
                yield b"x" * 10_000
        finally:
            self.log.append("large ends")

    async def fails(self):
        yield b"some"
        raise RuntimeError("on purpose")

    async def text(self):
        yield "a text"

    async def ended(self) -> None:
        self.log.append("ended")

    async def say(self, text: str, abort: bool = False) -> None:
        for stream in self.streams:
            stream.push(text.encode())
            if abort:
                self.ctx.abort("bye")

    async def end(self, how: str) -> None:
        for stream in self.streams:
            stream.close() if how == "close" else stream.abort("enough")

    async def read(self) -> list[str]:
        return self.log

    async def backlog(self) -> list[object]:
        return [(stream.backlog_bytes, stream.closed) for stream in self.streams]


async def plain(request: Request, env: Env) -> Response:
    async def chunks():
        try:
            for number in range(3):
                yield f"{number}\n".encode()
                await trio.sleep(1)
        finally:
            PLAIN.append(trio.current_time())

    return Response(200, stream=chunks())


PLAIN: list[float] = []


@attrs.frozen(kw_only=True)
class Env:
    """One namespace."""

    tickers: Namespace[Ticker]


APP = App(env=Env, routes={"/plain": plain, "/{name}/{rest:path}": Ticker})


@pytest.fixture
async def server():
    async with start_server(APP) as running:
        yield running


async def test_chunks_arrive_when_they_are_made_while_other_events_run(autojump_clock, server):
    begun = trio.current_time()
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/ticks") as response:
        assert response.status == 200
        assert response.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in response.headers
        seen = []
        async for chunk in response.stream:
            seen.append((chunk, round(trio.current_time() - begun, 1)))
            assert await stub.read() == []  # it takes turns
    assert seen == [(b"0\n", 0.0), (b"1\n", 1.0), (b"2\n", 2.0)]
    assert await stub.read() == ["ticks end at 2"]


async def test_a_routes_iterator_is_streamed_and_closed_too(autojump_clock, server):
    PLAIN.clear()
    assert (await server.request("GET", "/plain")).body == b"0\n1\n2\n"
    assert len(PLAIN) == 1


async def test_a_client_that_goes_away_ends_the_iterator_at_once(autojump_clock, server):
    PLAIN.clear()
    for target in ("/plain", "/a/ticks"):
        async with server.stream("GET", target) as response:
            assert await anext(response.stream) == b"0\n"
    begun = trio.current_time()
    await trio.sleep(0.1)
    assert [pytest.approx(begun, abs=0.05)] == PLAIN
    stub = server.env.tickers.get_by_name("a")
    assert await stub.read() == ["ticks end at 0"]
    assert server.why_awake(stub) == []


async def test_a_client_that_does_not_read_stops_the_producer_and_is_given_up(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/large"):
        await trio.sleep(1)
        made = len(await stub.read())
        assert made < 40  # the window of the network, 64 KiB here, and as much in the server
        await trio.sleep(5)
        assert len(await stub.read()) == made
        await trio.sleep(10)
        assert (await stub.read())[-1] == "large ends"


async def test_all_of_a_large_response_arrives(autojump_clock, server):
    assert (await server.request("GET", "/a/large")).body == b"x" * 10_000_000


async def test_a_response_that_is_read_keeps_its_actor_in_memory(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed") as response:
        assert await anext(response.stream) == b"hello\n"
        await trio.sleep(60)
        assert server.live_actors == 1
        assert server.why_awake(stub) != []
        await stub.say("still here")
        assert await anext(response.stream) == b"still here"
        await stub.end("close")
        assert [chunk async for chunk in response.stream] == []
        assert await stub.read() == ["ended"]
    await trio.sleep(60)
    assert server.live_actors == 0


async def test_who_reads_too_slowly_is_cut_off_and_the_actor_is_told(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed") as slow:
        await trio.sleep(1)
        for _ in range(100):
            await stub.say("x" * 900)
            await trio.sleep(0.1)
            await stub.say("y" * 101) if await stub.backlog() == [(900, False)] else None
        assert await stub.backlog() == [(0, True)]
        with pytest.raises(ConnectionError):
            [chunk async for chunk in slow.stream]
    await trio.sleep(1)
    assert await stub.read() == ["ended"]
    await stub.say("to nobody")


async def test_who_reads_nothing_for_five_seconds_is_cut_off_however_little_waits(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed"):
        for _ in range(1_000):  # the window of the network
            await stub.say("x" * 900)
            await trio.sleep(0.001)
            if await stub.backlog() != [(0, False)]:
                break
        await trio.sleep(4)
        await stub.say("y")
        assert await stub.backlog() == [(901, False)]
        await trio.sleep(1)
        await stub.say("z")
        assert await stub.backlog() == [(0, True)]


async def test_what_was_written_before_an_abort_arrives_and_the_response_is_seen_to_be_incomplete(
    autojump_clock, server
):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed") as response:
        await stub.say("last words")
        await stub.end("abort")
        received = await anext(response.stream)
        while received != b"hello\nlast words":
            received += await anext(response.stream)
        with pytest.raises(ConnectionError):
            await anext(response.stream)


async def test_an_error_in_the_iterator_is_logged_and_ends_the_connection(autojump_clock, server):
    async with server.stream("GET", "/a/fails") as response:
        assert await anext(response.stream) == b"some"
        with pytest.raises(ConnectionError):
            await anext(response.stream)
    with pytest.raises(ConnectionError):
        await server.request("GET", "/a/text")  # which is no bytes


async def test_the_end_of_an_instance_ends_what_it_streams(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed") as response:
        assert await anext(response.stream) == b"hello\n"
        server.abort(stub)
        with pytest.raises(ConnectionError):
            await anext(response.stream)


async def test_chunks_of_a_turn_that_was_aborted_never_leave(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    async with server.stream("GET", "/a/pushed") as response:
        assert await anext(response.stream) == b"hello\n"
        with pytest.raises(Exception, match="bye"):
            await stub.say("never", abort=True)
        with pytest.raises(ConnectionError):
            await anext(response.stream)


async def test_an_actor_passes_on_or_reads_what_another_one_streams(autojump_clock, server):
    async with server.stream("GET", "/a/passed") as response:
        assert response.headers["x-passed"] == "on"
        assert b"".join([chunk async for chunk in response.stream]) == b"0\n1\n2\n"
    assert (await server.request("GET", "/a/read")).body == b"0\n1\n2\n"


async def test_a_response_that_cannot_be_sent_or_has_no_body_ends_its_iterator(autojump_clock, server):
    stub = server.env.tickers.get_by_name("a")
    assert (await server.request("GET", "/a/bad-header")).status == 500
    await trio.sleep(0.1)
    assert (await server.request("HEAD", "/a/ticks")).body == b""
    await trio.sleep(0.1)
    assert server.why_awake(stub) == []


def test_a_response_has_a_body_or_a_stream():
    async def chunks():
        yield b""

    with pytest.raises(ValueError, match="not both"):
        Response(200, b"body", stream=chunks())
