"""Crashes and aborts at any moment: what file, http and command sources offer arrives once and in order."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from actors.app import app
from actors.ingest.process import Ended
from actors.ingest.sources.command import command
from actors.ingest.sources.file import file
from actors.ingest.sources.http import http
from actors.settings import Settings, SourceSettings, StreamSettings
from runtime.testing import MemoryStore, start_server
from tests.actors.ingest.kit import example, only, published, status

ROUNDS = 25
ITEMS = 200  # what the site has in the end; it offers all it has
RUNS = 30  # of the program, that print something
A_RUN = 3
SETTLE_S = 0.05
LATE_S = 0.04


class Offers:
    """Counterparts that offer more and more for a while, each numbers from 0 on."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.path = folder / "log.jsonl"
        self.lines = 0
        self.items = 0
        self._rotated = 0
        self._stamp = 2_000_000_000_000_000_000
        self._append(b"")

    async def write(self) -> None:
        """Some lines, and now and then a rotation in either way; whoever writes notices a new name a little later."""
        for _ in range(ROUNDS):
            content = b"".join(b'{"n":%d}\n' % n for n in range(self.lines, self.lines + self.rng.randint(1, 60)))
            self.lines += content.count(b"\n")
            cut = self.rng.randint(1, 8)
            self._append(content[:-cut])
            rotates, copies = self.rng.random() < 0.3, self.rng.random() < 0.5
            if rotates and not copies:
                self._rename()
            await trio.sleep(self.rng.uniform(0, LATE_S))
            self._append(content[-cut:], self.path.with_suffix(".jsonl.1") if rotates and not copies else None)
            if rotates and copies:
                self._copy()
            await trio.sleep(self.rng.uniform(0, 0.3))

    def _append(self, content: bytes, path: Path | None = None) -> None:
        with (path or self.path).open("ab") as out:
            out.write(content)
        self._touch(path or self.path)

    def _rename(self) -> None:
        self._make_way()
        self.path.rename(self.path.with_suffix(".jsonl.1"))
        self._append(b"")

    def _copy(self) -> None:
        self._make_way()
        copy = self.path.with_suffix(".jsonl.1")
        shutil.copyfile(self.path, copy)
        self._touch(copy)
        os.truncate(self.path, 0)
        self._touch(self.path)

    def _make_way(self) -> None:
        for number in range(self._rotated, 0, -1):
            self.path.with_suffix(f".jsonl.{number}").rename(self.path.with_suffix(f".jsonl.{number + 1}"))
        self._rotated += 1

    def _touch(self, path: Path) -> None:
        self._stamp += 10  # the clock of files is too coarse to order what happens in virtual time
        os.utime(path, ns=(self._stamp, self._stamp))

    async def site(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.rng.uniform(0, 0.05))
        self.items = min(ITEMS, self.items + self.rng.randint(0, 9))
        headers = {"etag": f'"{self.items}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return httpx.Response(304, headers=headers)
        return httpx.Response(200, headers=headers, content=json.dumps([{"n": n} for n in range(self.items)]).encode())

    async def program(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdout_bytes: int
    ) -> Ended:
        await trio.sleep(self.rng.uniform(0, 0.05))
        first = A_RUN * (int(env["HELIOGRAPH_RUN"]) - 1)
        last = min(first + A_RUN, A_RUN * RUNS)
        return Ended(code=0, stdout=b"".join(b'{"n":%d}\n' % n for n in range(first, last)), stderr=b"")


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_moment_a_crash_picks_each_arrives_once_and_in_order(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    offers = Offers(tmp_path, rng)
    kinds = {
        "a": lambda world, options: file(world, {"path": str(offers.path), "type": "t", "settle_s": SETTLE_S}),
        "b": lambda world, options: http(
            world, {"url": "http://x", "type": "t", "id": "/n"}, httpx.MockTransport(offers.site)
        ),
        "c": lambda world, options: command(world, {"argv": ["x"], "type": "t"}, offers.program),
    }
    monkeypatch.setattr(Settings, "kinds", kinds)
    settings = attrs.evolve(
        only(*(SourceSettings(kind=kind, schedule="@every 100ms") for kind in kinds)),
        stream=StreamSettings(dedup_s=0),  # the cursors alone must do it
    )
    store = MemoryStore(delay=lambda: rng.uniform(0, 0.03))  # so that a crash finds writes that are under way
    async with start_server(app, settings=settings, seed=seed, store=store) as server:
        await trio.sleep(1)  # what was rotated before the first look is not looked for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(offers.write)
            for _ in range(ROUNDS):
                await trio.sleep(rng.uniform(0, 0.3))
                for _ in range(rng.randint(0, 30)):
                    await trio.lowlevel.checkpoint()
                match rng.randrange(4):
                    case 0:
                        await server.crash()
                        await server.start()
                    case 1:
                        server.abort(server.env.ingests.get_by_name(rng.choice("abc")))
                    case _:
                        server.abort(server.env.broadcasters.get_by_name("main"))
        await trio.sleep(20)
        found: dict[str, list[int]] = {kind: [] for kind in kinds}
        for signal in await published(server):
            found[signal.entity].append(signal.data["n"])
        assert offers.lines > ROUNDS
        assert found == {
            "a": list(range(offers.lines)),
            "b": list(range(ITEMS)),
            "c": list(range(A_RUN * RUNS)),
        }


async def test_one_s_own_source_of_the_page_runs(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "write-a-source.md").read_text(encoding="utf-8")
    code = page.partition("<!-- file: tickets.py -->\n```python\n")[2].partition("```")[0]
    (tmp_path / "tickets.py").write_text(code)
    with closing(sqlite3.connect("tickets.db")) as database, database:
        database.execute("create table ticket (id integer primary key, who text, data text)")
        rows = [("alice", json.dumps({"n": n})) for n in range(2_500)]
        database.executemany("insert into ticket (who, data) values (?, ?)", rows)
    async with start_server(app, settings=only(example("write-a-source"))) as server:
        await trio.sleep(1)
        found = await published(server)
        assert [(one.entity, one.data["n"], one.id) for one in found] == [
            ("alice", n, f"tickets:{n + 1}") for n in range(2_500)
        ]
        assert (await status(server, "tickets"))["cursor"] == "2500"


@pytest.mark.parametrize(
    ("kind", "said"),
    [("htpp", "did you mean 'http'"), ("no_such_module:x", "no module 'no_such_module'"), ("json:nothing", "nothing")],
)
def test_a_kind_that_does_not_exist_is_named(kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        only(SourceSettings(kind=kind, name="s"))
