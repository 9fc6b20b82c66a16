"""The console: what a page of it that somebody looks at costs a server with 10,000 connections."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path

from actors.client.sync import SyncSignalClient
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
    seconds = (len(LISTS) + 2) * (window_s + QUIET_S + 3) + 20
    load = Load(subscribers=subscribers, settle_s=1.0, phases=(f"rate:1:{seconds:.0f}",))
    cases: dict[str, dict[str, float]] = {}
    with running(subject, setting) as server, loading(load, server, setting) as client:
        client.wait_connected(subscribers)
        client.wait_phase(0)
        time.sleep(QUIET_S)  # what connecting has left to do
        alone = _share(server, window_s)
        cases["nobody"] = {"server_share": alone, "added_share": 0.0}
        for page, path in LISTS.items():
            with _looking(server, path):
                time.sleep(3.0)
                share = _share(server, window_s)
            cases[page] = {"server_share": share, "added_share": share - alone}
        time.sleep(QUIET_S)
        share = _share(server, window_s)
        cases["nobody any more"] = {"server_share": share, "added_share": share - alone}
    return cases


@contextlib.contextmanager
def _looking(server: Running, path: str | None) -> Generator[None]:
    """What a page does: it follows the hidden stream, and asks for its list once a second."""
    over = threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        while path is not None and not over.wait(1.0):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
                return
            if answer.status != 200:
                failures.append(BenchError(f"GET {path} answered {answer.status}: {body[:200]!r}"))
                return

    asking = threading.Thread(target=ask)
    url = f"http://127.0.0.1:{server.port}/console/stream"
    with SyncSignalClient(url) as viewer, viewer.subscribe(types=["console.>"]) as overviews:
        next(overviews)
        asking.start()
        reading = threading.Thread(target=deque, args=(overviews, 0))
        reading.start()
        try:
            yield
        finally:
            over.set()
            asking.join()
    reading.join()
    if failures:
        raise BenchError(f"the page could not be shown: {failures[0]!r}")


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
