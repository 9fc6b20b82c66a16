"""The C load client sees what a server does wrong, and speaks the product's protocol."""

import contextlib
import json
import os
import shutil
from functools import partial

import pytest
import trio
from trio_websocket import ConnectionClosed, serve_websocket

from bench.build import compile_program
from bench.load import Load, run_load
from bench.measure import BenchError
from bench.servers import SIGNALS, Running, running

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the load client is a C program"),
]


class Stream:
    """A server of signals.v1 for one stream of numbered signals that may be made to misbehave."""

    def __init__(self, frames_for=lambda number, message: [message], refuse=None, answers=True):
        self.frames_for = frames_for
        self.refuse = refuse
        self.answers = answers
        self.members = {}
        self.hellos = []
        self.offset = 0

    async def handle(self, request):
        assert request.path == "/v1/stream"
        socket = await request.accept(subprotocol=request.proposed_subprotocols[0])
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.on_message(socket, json.loads(await socket.get_message()))

    async def on_message(self, socket, message):
        match message["t"]:
            case "hello" if self.refuse and "subs" in message:
                await socket.send_message(self.refuse)
            case "hello" if "subs" in message:
                self.hellos.append(message)
                self.members[socket] = message["subs"][0]["filter"]["types"][0]
                welcome = {"t": "welcome", "id": 1, "limits": {"p": 1}}
                await socket.send_message(f'{json.dumps(welcome)}\n{{"t":"live","s":"bench","g":1,"b":0}}')
            case "hello":
                await socket.send_message('{"t":"welcome","id":1}')
            case "pub":
                self.offset += 1
                signal = message["signal"]
                text = json.dumps(
                    {"t": "sig", "g": 1, "a": self.offset - 1, "b": self.offset, "d": [{"o": self.offset, **signal}]}
                )
                for member, wanted in tuple(self.members.items()):
                    if wanted in ("bench.>", signal["type"]):
                        for frame in self.frames_for(signal["data"]["n"], text):
                            await member.send_message(frame)
                if self.answers:
                    await socket.send_message(f'{{"t":"ok","id":{message["id"]},"o":{self.offset}}}')


async def load_on(stream, setting, load):
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, stream.handle, "127.0.0.1", 0, None))
        running_server = Running(pid=os.getpid(), port=server.port, dialect=SIGNALS, data=setting.build)
        result = await trio.to_thread.run_sync(run_load, load, running_server, setting)  # noqa: TID251
        nursery.cancel_scope.cancel()
    return result


SHORT = Load(subscribers=4, phases=("rate:100:0.5",), settle_s=0, drain_s=0.5)


async def test_a_server_that_does_everything_right_has_nothing_against_it(setting):
    phase = (await load_on(Stream(), setting, SHORT)).phases[0]
    assert (phase.missing, phase.duplicates, phase.out_of_order, phase.foreign) == (0, 0, 0, 0)
    assert phase.drained
    assert phase.latency_ms.count == 4 * phase.last_ms.count > 0
    assert 0 < phase.latency_ms.p50 <= phase.last_ms.max


async def test_several_messages_in_a_frame_all_count(setting):
    held = []

    def two_at_a_time(_number, message):
        if not held:
            held.append(message)
            return []
        return [f"{held.pop()}\n{message}"]

    one = Load(subscribers=1, phases=("window:2:0.5",), settle_s=0, drain_s=0.5)
    phase = (await load_on(Stream(two_at_a_time), setting, one)).phases[0]
    assert (phase.missing, phase.duplicates, phase.drained) == (0, 0, True)
    assert phase.published > 10


async def test_a_signal_that_does_not_arrive_is_missing_at_every_subscriber(setting):
    stream = Stream(lambda number, message: [] if number == 7 else [message])
    phase = (await load_on(stream, setting, SHORT)).phases[0]
    assert (phase.missing, phase.duplicates, phase.out_of_order) == (4, 0, 0)


async def test_a_signal_that_arrives_twice_is_a_duplicate(setting):
    stream = Stream(lambda number, message: [message, message] if number == 7 else [message])
    phase = (await load_on(stream, setting, SHORT)).phases[0]
    assert (phase.missing, phase.duplicates, phase.out_of_order) == (0, 4, 0)


async def test_signals_that_change_places_are_out_of_order(setting):
    held = []

    def swap(number, message):
        if number == 7:
            held.append(message)
            return []
        return [message, held.pop()] if number == 8 else [message]

    phase = (await load_on(Stream(swap), setting, SHORT)).phases[0]
    assert (phase.missing, phase.duplicates, phase.out_of_order) == (0, 0, 4)


async def test_each_group_has_its_own_filter_and_sequence(setting):
    stream = Stream()
    load = Load(
        subscribers=6,
        phases=("rate:100:0.5",),
        filters=tuple({"types": [f"bench.s{group}"]} for group in range(3)),
        sequences=3,
        settle_s=0,
        drain_s=0.5,
    )
    phase = (await load_on(stream, setting, load)).phases[0]
    assert sorted(hello["subs"][0]["filter"]["types"][0] for hello in stream.hellos) == [
        "bench.s0",
        "bench.s0",
        "bench.s1",
        "bench.s1",
        "bench.s2",
        "bench.s2",
    ]
    assert (phase.missing, phase.duplicates, phase.foreign) == (0, 0, 0)
    assert phase.latency_ms.count == 2 * phase.last_ms.count > 0


async def test_a_refused_subscription_ends_the_run_with_the_answer(setting):
    with pytest.raises(BaseExceptionGroup) as caught:
        await load_on(Stream(refuse='{"t":"err","id":1,"code":422,"slug":"bad_filter"}'), setting, SHORT)
    assert caught.group_contains(BenchError, match="bad_filter")


async def test_the_publisher_waits_for_answers_before_it_floods_the_server(setting):
    stream = Stream(answers=False)
    load = Load(subscribers=1, phases=("rate:1000:0.5",), settle_s=0, drain_s=0.5)
    phase = (await load_on(stream, setting, load)).phases[0]
    assert stream.offset == 32
    assert phase.drained


@pytest.mark.parametrize("name", ["c_send", "c_coalesce"])
def test_the_limit_servers_deliver_everything_and_close_who_does_not_read(setting, name):
    load = Load(subscribers=5, stuck=1, size=60_000, phases=("rate:400:0.5",), settle_s=0)
    with running(name, setting) as server:
        result = run_load(load, server, setting)
    assert (result.phases[0].missing, result.phases[0].duplicates) == (0, 0)
    assert result.stuck.closed == 1


def test_without_a_compiler_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="install one"):
        compile_program("wsload", tmp_path)
