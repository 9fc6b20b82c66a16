"""The client under asyncio, without async, and killed with its cursors in a file: over real sockets."""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys
import threading  # noqa: TID251 - whether one is left
import time
from pathlib import Path

import anyio
import pytest

from actors.client import (
    ClientClosed,
    F,
    FileCursorStore,
    InvalidFilter,
    InvalidSignal,
    Last,
    SignalClient,
    SyncSignalClient,
)
from tests.browser.serving import Server

pytestmark = pytest.mark.real
PATIENCE_S = 240  # for a machine that has much else to do


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for all tests: each looks at what is published while it runs."""
    running = Server(tmp_path_factory.mktemp("server") / "data")
    running.start()
    yield running
    running.kill()


def post(server, type_, *numbers):
    return server.post(*({"type": type_, "entity": "e", "data": n} for n in numbers))


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_both_loops_resume_on_the_next_server_and_say_why_a_handshake_was_refused(backend, server):
    async def main():
        with anyio.fail_after(PATIENCE_S):
            type_ = f"loop.{backend}"
            async with SignalClient(server.url) as client, client.subscribe(types=[type_]) as sub:
                first = await client.publish(type_, "e", 1)
                assert (await anext(sub)).o == first.offset
                await anyio.to_thread.run_sync(server.kill)  # noqa: TID251
                await anyio.to_thread.run_sync(server.start)  # noqa: TID251
                second = await client.publish(type_, "e", 2)
                assert (await anext(sub)).o == second.offset
                assert [item.data async for item in client.history(types=[type_], reverse=True)] == [2, 1]
                assert client.rtt < PATIENCE_S
            with pytest.raises(ClientClosed, match="answered 404") as caught:
                async with SignalClient(f"{server.url}/elsewhere") as client:
                    await client.publish(type_, "e", 3)
            assert caught.value.code == 404

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("name", ["__init__", "subscribe", "publish", "history"])
def test_the_blocking_client_takes_the_arguments_of_the_other_one(name):
    blocking, other = (inspect.signature(getattr(cls, name)) for cls in (SyncSignalClient, SignalClient))
    assert blocking.parameters == other.parameters


def test_a_script_publishes_reads_and_leaves_no_thread(server):
    threads = set(threading.enumerate())
    with SyncSignalClient(server.url) as client:
        with client.subscribe(types=["t.>"], where=F("/data") > 1, name="big") as sub:
            with pytest.raises(TimeoutError):
                sub.take(timeout_s=0.3)
            with client.limit(0.3), pytest.raises(TimeoutError):
                next(sub)
            for number in range(4):
                client.publish("t.a", "e", number)
            seen = []
            for item in sub:
                seen.append(item.data)
                if len(seen) == 2:
                    break
            assert (seen, sub.name, sub.state) == ([2, 3], "big", "live")
            sub.modify(filter={"types": ["u"]})
        assert [item.data for item in client.history(types=["t.a"], since=Last(3))] == [1, 2, 3]
        assert client.publish("t.a", "e", 0, id="k").dup != client.publish("t.a", "e", 0, id="k").dup
        with pytest.raises(InvalidSignal):
            client.publish("t.a", "e", "x" * 300_000)
        with pytest.raises(InvalidFilter):
            client.subscribe(types=["a b"])
        assert (client.state.state, client.stats.published) == ("connected", 6)
        left_open = client.subscribe()
    assert set(threading.enumerate()) <= threads
    with pytest.raises(ClientClosed, match="not running"):
        next(left_open)
    left_open.close()


def test_ctrl_c_ends_a_script_that_waits_for_a_signal(server):
    threads = set(threading.enumerate())
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the block itself
            with SyncSignalClient(server.url) as client:
                sub = client.subscribe(types=["c.a"])
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                with pytest.raises(KeyboardInterrupt):
                    next(sub)
                client.publish("c.a", "e", 1)
                assert next(sub).data == 1, "an interrupted wait leaves the subscription as it was"
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                next(sub)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(threading.enumerate()) <= threads


def test_a_store_that_fails_ends_the_block_of_a_script_with_its_error(server, tmp_path):
    class Full(FileCursorStore):
        async def save(self, cursors):
            raise OSError("no space left on device")

    post(server, "p.a", 1, 2)
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block itself
        with SyncSignalClient(server.url, cursor_store=Full(tmp_path / "c")) as client:
            with pytest.raises(ClientClosed):
                for _ in client.subscribe(name="px", types=["p.a"], since="earliest"):
                    pass
    assert caught.group_contains(OSError, match="no space")


CONSUMER = """
import sys
import trio
from actors.client import FileCursorStore, Gap, SignalClient

async def main(url, cursors, seen):
    store = FileCursorStore(cursors)
    async with SignalClient(url, cursor_store=store) as client:
        async with client.subscribe(name="all", types=["k.a"], since="earliest") as sub:
            with open(seen, "a", buffering=1) as out:
                async for item in sub:
                    assert not isinstance(item, Gap)
                    out.write(f"{item.o}\\n")
                    await trio.sleep(0.004)

trio.run(main, *sys.argv[1:])
"""


def test_a_consumer_killed_again_and_again_repeats_only_what_was_not_stored_and_loses_nothing(server, tmp_path):
    stream = [o for start in range(0, 600, 100) for o in post(server, "k.a", *range(start, start + 100))]
    cursors, seen = tmp_path / "cursors.json", tmp_path / "seen"
    seen.touch()
    for last in (False, False, True):
        lines, stored = len(read(seen)), stored_offset(cursors)
        with subprocess.Popen([sys.executable, "-c", CONSUMER, server.url, cursors, seen]) as consumer:
            try:
                wait_until(lambda lines=lines: len(read(seen)) >= lines + 190)
                if last:
                    wait_until(lambda: stream[-1] in read(seen))
            finally:
                consumer.kill()
        taken = read(seen)[lines:]
        begin = sum(o <= stored for o in stream)
        assert taken == stream[begin : begin + len(taken)], "it went on exactly behind what was stored"
        assert begin <= len(set(read(seen)[:lines])), "nothing was skipped"
    assert sorted(set(read(seen))) == stream
    assert stored_offset(cursors) > stream[300]


def read(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split("\n")[:-1]]


def stored_offset(path: Path) -> int:
    if not path.exists():
        return 0
    [cursor] = json.loads(path.read_text())["cursors"].values()
    return int(re.fullmatch(r"[\w-]+:(\d+)", cursor)[1])


def wait_until(condition) -> None:
    end = time.monotonic() + PATIENCE_S  # noqa: TID251 - another process
    while not condition():
        assert time.monotonic() < end  # noqa: TID251
        time.sleep(0.02)


def test_the_types_of_the_client_are_complete(tmp_path):
    """A program that uses everything passes `mypy --strict`."""
    sample = Path(__file__).parent / "typed_sample.py"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(sample)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
