"""The C client that asks objects takes every answer for the one it expects, or ends the run."""

import contextlib
import os
import shutil
from functools import partial

import pytest
import trio
from trio_websocket import ConnectionClosed, serve_websocket

from bench.ask import ask
from bench.measure import BenchError
from bench.servers import Running, keepers, running

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the client is a C program"),
]


async def ask_a_server(setting, answers, **load):
    """Asks a server that makes of each message the answers that it is told to."""
    paths = set()

    async def handle(request):
        paths.add(request.path)
        socket = await request.accept()
        with contextlib.suppress(ConnectionClosed):
            while True:
                for answer in answers(await socket.get_message()):
                    await socket.send_message(answer)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, handle, "127.0.0.1", 0, None))
        there = Running(pid=os.getpid(), port=server.port, dialect=keepers("/object/"), data=setting.build)
        asked = partial(ask, there, setting, seconds=0.3, **load)
        result = await trio.to_thread.run_sync(asked)  # noqa: TID251
        nursery.cancel_scope.cancel()
    return result, paths


async def test_every_object_is_asked_on_a_connection_of_its_own_and_answers_are_counted(setting):
    result, paths = await ask_a_server(setting, lambda message: [message], objects=3, window=2)
    assert paths == {"/object/0", "/object/1", "/object/2"}
    assert result.answers > 6
    assert result.answers_per_s == pytest.approx(result.answers / result.seconds, rel=0.01)
    assert 0 < result.latency_ms.p50 <= result.latency_ms.max


@pytest.mark.parametrize("wrong", [lambda message: [message, message], lambda message: [message[:-1]]])
async def test_an_answer_that_is_not_the_next_one_ends_the_run(setting, wrong):
    with pytest.raises(BaseExceptionGroup) as caught:
        await ask_a_server(setting, wrong, objects=1, window=1)
    assert caught.group_contains(BenchError, match="expected answer")


@pytest.mark.parametrize("backend", ["shared", "sql"])
def test_objects_of_both_backends_answer_all_in_order(setting, backend):
    with running(backend, setting) as server:
        result = ask(server, setting, objects=5, window=8, seconds=0.3)
    assert result.answers > 40
