"""The console: what a page of it that somebody looks at costs a server with 10,000 connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import threading
import time
from collections.abc import Generator
from pathlib import Path

import trio
from trio_websocket import open_websocket_url

from bench.load import Load, loading
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SUBSCRIBERS = 10_000
SHARE = 0.05  # of the server's core
NOTHING = 0.005
QUIET_S = 7.0  # the server makes an overview for five seconds more after the last one has gone
LISTS = {
    "overview": None,
    "connections": "/console/api/connections?sort=backlog_bytes&desc=1&offset=0&limit=200",
    "subscriptions": "/console/api/subscriptions?sort=members&desc=1&offset=0&limit=200",
    "actors": "/console/api/actors?sort=mailbox&desc=1&offset=0&limit=200",
    "analytics": "/console/api/analytics?span=day",
}
_TICKS = 100.0  # USER_HZ


def run(subject: str, setting: Setting) -> Cases:
    """One server at a signal a second: its CPU while nobody looks, with each page open, and once nobody does."""
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    window_s = 5.0 if setting.quick else 15.0
    seconds = len(LISTS) * (2 * window_s + QUIET_S + 5) + window_s + QUIET_S + 20
    load = Load(subscribers=subscribers, settle_s=1.0, connect_s=240.0, phases=(f"rate:1:{seconds:.0f}",))
    cases: dict[str, dict[str, float]] = {}
    with running(subject, setting) as server, loading(load, server, setting) as client:
        client.wait_connected(subscribers)
        client.wait_phase(0)
        time.sleep(QUIET_S)  # what connecting has left to do
        alone = [_share(server, window_s)]
        for page, path in LISTS.items():
            with _looking(server, path):
                time.sleep(3.0)
                share = _share(server, window_s)
            time.sleep(QUIET_S)
            alone.append(_share(server, window_s))
            # Against right before and right after: a core is not equally quick for minutes.
            cases[page] = {"server_share": share, "added_share": share - (alone[-2] + alone[-1]) / 2}
        cases["nobody"] = {"server_share": alone[0], "added_share": 0.0}
        later = statistics.median(alone[1:])
        cases["nobody any more"] = {"server_share": later, "added_share": later - alone[0]}
    return cases


@contextlib.contextmanager
def _looking(server: Running, path: str | None) -> Generator[None]:
    """What a page does: it follows the hidden stream, and asks for its list once a second."""
    over = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            trio.run(_look, server.port, path, over)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    if failures:
        raise BenchError(f"the page could not be shown: {failures[0]!r}")


async def _look(port: int, path: str | None, over: threading.Event) -> None:
    url = f"ws://127.0.0.1:{port}/console/stream"
    async with open_websocket_url(url, subprotocols=["signals.v1.json"]) as ws, trio.open_nursery() as nursery:
        await ws.send_message(json.dumps({"t": "hello", "id": 1, "subs": [{"s": "a", "filter": {}}]}))
        overviews = 0

        async def read() -> None:
            nonlocal overviews
            while True:
                overviews += "console.overview" in await ws.get_message()

        nursery.start_soon(read)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        begun = trio.current_time()
        while not over.is_set():
            await trio.sleep(1.0)
            if path is not None:
                await trio.to_thread.run_sync(_ask, connection, path)
        nursery.cancel_scope.cancel()
        if overviews < (trio.current_time() - begun) / 2:
            raise BenchError(f"only {overviews} overviews came")


def _ask(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise BenchError(f"GET {path} answered {answer.status}: {body[:200]!r}")


def _share(server: Running, seconds: float) -> float:
    """How much of a core the server uses, all threads."""
    begun, used = time.monotonic(), _cpu_s(server)
    time.sleep(seconds)
    return (_cpu_s(server) - used) / (time.monotonic() - begun)


def _cpu_s(server: Running) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """A page that somebody looks at is cheap, and nobody who looks costs nothing."""
    of_pages = [
        Claim(
            name=f"console: share of a core, {page}",
            top=Operand("product", page, "added_share"),
            better="lower",
            floor=SHARE,
        )
        for page in LISTS
    ]
    after = Operand("product", "nobody any more", "added_share")
    return (*of_pages, Claim(name="console: nobody looks any more", top=after, better="lower", floor=NOTHING))


MEASURE = Measure(
    name="console",
    summary="10,000 connections and one page of the console open: what it adds to the server's CPU",
    subjects=("product",),
    run=run,
    claims=claims,
    shown=("server_share", "added_share"),
    repeat=1,
    default=False,
)
