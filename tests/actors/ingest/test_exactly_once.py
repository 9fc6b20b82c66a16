"""Crashes and aborts at any moment: what file, http and command sources offer arrives once and in order."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from actors.app import app
from actors.ingest.ingest import Ingest
from actors.ingest.process import Ended
from actors.ingest.sources.command import command
from actors.ingest.sources.file import file
from actors.ingest.sources.http import http
from actors.settings import SourceSettings
from runtime.testing import start_server
from tests.actors.ingest.kit import example, only, published, status


class Offers:
    """Counterparts that go on offering, each numbers from 0 on."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.path = folder / "log.jsonl"
        self.path.touch()
        self.lines = 0
        self.items = 0

    def write(self) -> None:
        with self.path.open("ab") as out:
            for _ in range(self.rng.randint(0, 60)):
                out.write(b'{"n":%d}\n' % self.lines)
                self.lines += 1

    async def site(self, _: httpx.Request) -> httpx.Response:
        await trio.sleep(self.rng.uniform(0, 0.05))
        self.items += self.rng.randint(0, 9)
        return httpx.Response(
            200, content=json.dumps([{"n": n} for n in range(max(0, self.items - 2_000), self.items)]).encode()
        )

    async def program(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdout_bytes: int
    ) -> Ended:
        await trio.sleep(self.rng.uniform(0, 0.05))
        first = 3 * (int(env["HELIOGRAPH_RUN"]) - 1)
        return Ended(code=0, stdout=b"".join(b'{"n":%d}\n' % n for n in range(first, first + 3)), stderr=b"")


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_moment_a_crash_picks_each_arrives_once_and_in_order(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    offers = Offers(tmp_path, rng)
    kinds = {
        "a": lambda world, options: file(world, {"path": str(offers.path), "type": "t"}),
        "b": lambda world, options: http(
            world, {"url": "http://x", "type": "t", "id": "/n"}, httpx.MockTransport(offers.site)
        ),
        "c": lambda world, options: command(world, {"argv": ["x"], "type": "t"}, offers.program),
    }
    monkeypatch.setattr(Ingest, "kinds", kinds)
    settings = only(*(SourceSettings(kind=kind, schedule="@every 100ms") for kind in kinds))
    async with start_server(app, settings=settings, seed=seed) as server:
        for _ in range(25):
            offers.write()
            await trio.sleep(rng.uniform(0, 0.3))
            for _ in range(rng.randint(0, 30)):
                await trio.lowlevel.checkpoint()
            match rng.randrange(4):
                case 0:
                    await server.crash()
                    await server.start()
                case 1:
                    server.abort(server.env.broadcasters.get_by_name("main"))
                case _:
                    server.abort(server.env.ingests.get_by_name(rng.choice("abc")))
        await trio.sleep(30)
        found: dict[str, list[int]] = {}
        for signal in await published(server):
            found.setdefault(signal.entity, []).append(signal.data["n"])
        assert found["a"] == list(range(offers.lines))
        assert found["b"] == list(range(len(found["b"])))
        assert offers.items - len(found["b"]) <= 300  # it goes on while the stream is read
        assert found["c"] == list(range(len(found["c"])))
        assert min(map(len, found.values())) > 50


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
    from actors.ingest.kinds import find_kind
    from actors.ingest.source import InvalidOptions

    with pytest.raises(InvalidOptions, match=said):
        find_kind(kind)
