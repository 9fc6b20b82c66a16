"""`heliograph inspect`, `restore` and `backup`: on data at rest, and beside a server that runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
from click.testing import CliRunner

from runtime import Actor, App, Namespace, codec
from runtime.cli import main
from runtime.ids import facet_address, id_from_name, id_from_string
from runtime.node import open_node
from runtime.storage.shared import SharedStore
from runtime.storage.store import WriteBatch
from runtime.testing.platform import EPOCH_S, virtual_platform

A = id_from_name("rooms", "a")
BOOKMARK = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}-0{8}-[0-9a-f]{32}")


def heliograph(*args: object) -> Any:
    return CliRunner().invoke(main, [*map(str, args)], env={"COLUMNS": "80"})


def said(*args: object) -> str:
    result = heliograph(*args)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refusal(*args: object) -> str:
    result = heliograph(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


def encoded(**values: Any) -> dict[bytes, bytes | None]:
    return {key.encode(): None if value is None else codec.encode(value) for key, value in values.items()}


STEPS: list[dict[str, Any]] = [
    {"writes": encoded(title="one", count=1), "alarm": EPOCH_S + 100},
    {"writes": encoded(title="two", count=None, extra=[1, {"x": b"\xff"}])},
    {"writes": encoded(only="this"), "delete_all": True, "alarm": None},
]


async def fill(folder: Path, seed: int = 0) -> None:
    store = SharedStore(folder, platform=virtual_platform(seed))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for step in STEPS:
            await trio.sleep(10)
            done = trio.Event()
            store.submit(WriteBatch(**{"actor": A, "sequence": 1, **step}), lambda _, done=done: done.set())  # type: ignore[misc]
            await done.wait()
        nursery.cancel_scope.cancel()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trio.run(fill, tmp_path / "data", clock=trio.testing.MockClock(autojump_threshold=0))
    return tmp_path / "data"


def storage(data: Path) -> tuple[dict[str, Any], float | None]:
    facts = json.loads(said("inspect", "rooms", "a", "--json", "--data", data))
    return facts["storage"], facts["alarm"]


def bookmarks(data: Path) -> list[str]:
    """Before each of the three steps."""
    facts = json.loads(said("inspect", "rooms", "a", "--json", "--data", data))
    return [one["bookmark"] for one in facts["bookmarks"]][::-1]


def test_inspect_lists_actors_and_shows_one(data: Path) -> None:
    row = said("inspect", "--data", data).splitlines()[1].split()
    assert row[:3] == ["rooms", '"a"', "1"]
    assert BOOKMARK.fullmatch(row[-1])
    assert said("inspect", "nobody", "--data", data).splitlines()[1:] == []
    facts = json.loads(said("inspect", "rooms", "--json", "--data", data))
    assert (facts["id"], facts["name"], facts["keys"], facts["alarm"]) == (str(A), "a", 1, None)
    text = said("inspect", "rooms", "a", "--data", data)
    assert '  only  "this"\n' in text
    assert re.findall(r"(\S+)  2026-01-01T00:00:([0-9.]+)Z", text) == [
        (bookmark, seconds)
        for bookmark, seconds in zip(reversed(bookmarks(data)), ("30.000", "20.000", "10.000"), strict=True)
    ]
    assert said("inspect", "rooms", "--id", A, "--data", data) == text
    assert "only" not in said("inspect", "rooms", "a", "--key", "x", "--data", data)


def test_inspect_shows_facets_behind_their_actor(data: Path) -> None:
    async def add() -> None:
        store = SharedStore(data, platform=virtual_platform())
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            done = trio.Event()
            first = {b"\xffff1": b"1" * 16}
            for who, writes in ((A, first), (below, encoded(x=2)), (facet, encoded(x=1)), (other, encoded(x=3))):
                store.submit(WriteBatch(actor=who, sequence=1, writes=writes), lambda _: None)
            store.submit(WriteBatch(actor=A, sequence=2, writes={}), lambda _: done.set())
            await done.wait()
            nursery.cancel_scope.cancel()

    other = id_from_name("rooms", "A")
    facet = facet_address(A, b"1" * 16, "f1")
    below = facet_address(facet, b"2" * 16, "below")
    trio.run(add)
    lines = said("inspect", "rooms", "--data", data).splitlines()[1:]
    assert [line[11:].split("  1  ")[0].rstrip() for line in lines] == [
        '"A"',
        '"a"',
        '  facet "f1"',
        '    facet "below"',
    ]
    facts = [json.loads(line) for line in said("inspect", "--json", "--data", data).splitlines()]
    assert [(one["keys"], one["facet_of"]) for one in facts] == [(1, None), (1, None), (1, str(A)), (1, str(facet))]
    assert json.loads(said("inspect", "rooms", "a", "--json", "--data", data))["storage"] == {"only": "this"}
    assert "  x  2\n" in said("inspect", "rooms", "--id", below, "--data", data)
    assert "not hexadecimal" in refusal("inspect", "rooms", "--id", f"{A}xy", "--data", data)


def test_restore_brings_the_facets_of_an_actor_back_with_it(data: Path) -> None:
    async def write(sequence: int, value: int) -> None:
        store = SharedStore(data, platform=virtual_platform())
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            done = trio.Event()
            store.submit(WriteBatch(actor=facet, sequence=sequence, writes=encoded(x=value)), lambda _: None)
            store.submit(WriteBatch(actor=A, sequence=0, writes={}, mark=True), lambda _: done.set())
            await done.wait()
            bookmarks_of_a.append(store.open(A).bookmark())
            nursery.cancel_scope.cancel()

    bookmarks_of_a: list[str] = []
    facet = facet_address(A, b"1" * 16, "f1")
    trio.run(write, 1, 1)
    trio.run(write, 2, 2)
    told = said("restore", "rooms", "a", "--to", bookmarks_of_a[0], "--data", data)
    assert "  1 of its facets are as they were then\n" in told
    assert "  x  1\n" in said("inspect", "rooms", "--id", facet, "--data", data)
    undo = told.splitlines()[-1].removeprefix("undo: heliograph ").replace('"', "").split()
    said(*undo, "--data", data)
    assert "  x  2\n" in said("inspect", "rooms", "--id", facet, "--data", data)


def test_restore_goes_to_bookmarks_and_times_and_can_be_undone(data: Path) -> None:
    _, first, second = bookmarks(data)
    told = said("restore", "rooms", "a", "--to", first, "--data", data)
    assert storage(data) == ({"title": "one", "count": 1}, EPOCH_S + 100)
    assert "everything that a delete_all took is there again" in told
    undo = told.splitlines()[-1].removeprefix("undo: heliograph ").replace('"', "").split()
    assert undo[-1] > second
    said(*undo, "--data", data)
    assert storage(data) == ({"only": "this"}, None)
    said("restore", "rooms", "a", "--to", "2026-01-01T00:00:25Z", "--data", data)
    assert storage(data)[0] == {"title": "two", "extra": [1, {"x": "ff"}]}
    told = said("restore", "rooms", "a", "--to", first, "--data", data)
    assert "  2 keys have an earlier value, 1 are gone\n" in told
    assert storage(data)[0] == {"title": "one", "count": 1}


def test_a_dry_run_says_the_same_and_changes_nothing(data: Path) -> None:
    before, first = storage(data), bookmarks(data)[1]
    dry = said("restore", "rooms", "a", "--to", first, "--dry-run", "--data", data)
    assert storage(data) == before
    assert bookmarks(data)[1] == first
    real = said("restore", "rooms", "a", "--to", first, "--data", data)
    assert dry.splitlines()[1:] == real.splitlines()[1:-1]


def test_a_restored_actor_has_another_lineage(data: Path) -> None:
    said("restore", "rooms", "a", "--to", bookmarks(data)[1], "--data", data)

    async def look() -> int | None:
        store = SharedStore(data, platform=virtual_platform())
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            restored = store.open(A).restored()
            nursery.cancel_scope.cancel()
        return restored

    assert trio.run(look) is not None


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("rooms", "a", "--to", "yesterday"), "is no bookmark"),
        (("rooms", "a", "--to", "2026-01-01T00:00:00"), "does not say in which zone"),
        (("rooms", "a", "--to", "2020-01-01T00:00:00Z"), "too early"),
        (("rooms", "a", "--to", f"{'0' * 8}-{'0' * 8}-{'0' * 8}-{'0' * 32}"), "is of other data"),
        (("rooms", "b", "--to", "2026-01-01T00:00:20Z"), "has nothing of rooms('b')"),
        (("rooms", "--to", "2026-01-01T00:00:20Z"), "NAME, or its id"),
        (("rooms", "--id", "12", "--to", "2026-01-01T00:00:20Z"), "must be 64 hex digits"),
        (("rooms", "a"), "where to (--to)"),
    ],
)
def test_what_cannot_be_restored_is_told_and_changes_nothing(data: Path, args: tuple[str, ...], why: str) -> None:
    before = storage(data)
    assert why in refusal("restore", *args, "--data", data)
    assert storage(data) == before


def test_where_there_is_no_data_none_is_made(tmp_path: Path) -> None:
    for command in (["inspect"], ["restore", "rooms", "a", "--to", "x"], ["backup", tmp_path / "copy"]):
        assert "no data in" in refusal(*command, "--data", tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_comes_from_the_configuration(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    assert '"a"' in said("inspect")
    data.rename(data.parent / "elsewhere")
    Path("heliograph.toml").write_text('[server]\ndata = "elsewhere"\n')
    assert '"a"' in said("inspect")


# Copies.


def test_a_backup_is_put_in_place_under_another_lineage(data: Path) -> None:
    copy = data.parent / "copy"
    lineage = (data / "lineage").read_text()
    first = bookmarks(data)[1]
    assert "bytes" in said("backup", copy, "--data", data)
    assert "exists" in refusal("backup", copy, "--data", data)
    before = storage(data)
    said("restore", "rooms", "a", "--to", first, "--data", data)
    assert storage(data) != before
    said("restore", "--from", copy, "--data", data)
    assert storage(data) == before
    assert not (data / "lineage").exists()
    assert (data / "replaced" / "lineage").read_text() == lineage
    assert storage(data / "replaced") != before
    trio.run(fill, data, 1, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (data / "lineage").read_text() != lineage


def test_bookmarks_from_before_a_backup_are_good_after_it_is_in_place_and_later_ones_are_not(data: Path) -> None:
    copy = data.parent / "copy"
    first = bookmarks(data)[1]
    said("backup", copy, "--data", data)
    trio.run(fill, data, 3, clock=trio.testing.MockClock(autojump_threshold=0))
    late = bookmarks(data)[-1]
    said("restore", "--from", copy, "--data", data)
    trio.run(fill, data, 5, clock=trio.testing.MockClock(autojump_threshold=0))
    assert max(bookmarks(data))[:17] >= late[:17]  # the same numbers were given out again
    assert "from after the backup was made" in refusal("restore", "rooms", "a", "--to", late, "--data", data)
    said("restore", "rooms", "a", "--to", first, "--data", data)
    assert storage(data)[0] == {"title": "one", "count": 1}
    again = data.parent / "again"
    said("backup", again, "--data", data)
    said("restore", "--from", again, "--data", data)
    said("restore", "rooms", "a", "--to", first, "--data", data)  # of a copy of a copy


def test_a_copy_that_is_damaged_or_none_is_refused(data: Path) -> None:
    copy = data.parent / "copy"
    before = storage(data)
    copy.mkdir()
    assert "no data in" in refusal("restore", "--from", copy, "--data", data)
    copy.rmdir()
    said("backup", copy, "--data", data)
    content = bytearray((copy / "heliograph.db").read_bytes())
    content[content.index(b"this") + 1] ^= 1
    (copy / "heliograph.db").write_bytes(content)
    assert "damaged" in refusal("restore", "--from", copy, "--data", data)
    assert storage(data) == before


def test_a_restore_of_a_copy_that_was_cut_short_is_done_again_before_a_server_starts(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = data.parent / "copy"
    said("backup", copy, "--data", data)
    before = storage(data)
    rename = Path.rename
    for cut in range(1, 10):
        calls = iter(range(1, 20))

        def failing(path: Path, target: Path, calls: Iterator[int] = calls, cut: int = cut) -> Path:
            if next(calls) == cut:
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        result = heliograph("restore", "--from", copy, "--data", data)
        monkeypatch.setattr(Path, "rename", rename)
        if result.exit_code == 0:
            break
        with pytest.raises(ExceptionGroup) as refused:
            trio.run(fill, data, clock=trio.testing.MockClock(autojump_threshold=0))
        assert "cut short" in str(refused.value.exceptions[0])
        said("restore", "--from", copy, "--data", data)
        assert storage(data) == before
    assert 2 < cut < 9
    assert storage(data) == before


# Beside a server.


@pytest.mark.real
def test_beside_a_server_data_is_read_and_copied_and_nothing_is_restored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "runtime", "serve", "--port", "0", "--no-sources", "--data", str(data)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("listening on ").strip()
            publish = [sys.executable, "-m", "runtime", "publish", url, "--type", "a.b", "--entity", "c", "--data", "1"]
            subprocess.run(publish, check=True, timeout=30, capture_output=True)
            stored = json.loads(said("inspect", "broadcasters", "main", "--json", "--data", data))
            (signal,) = [value for key, value in stored["storage"].items() if key.startswith("log/")]
            assert (signal["type"], signal["data"]) == ("a.b", 1)
            said("backup", tmp_path / "copy", "--data", data)
            arguments = ("broadcasters", "main", "--to", stored["bookmarks"][-1]["bookmark"])
            assert f"process id {server.pid}" in refusal("restore", *arguments, "--data", data)
            assert f"process id {server.pid}" in refusal("restore", "--from", tmp_path / "copy", "--data", data)
            subprocess.run(publish, check=True, timeout=30, capture_output=True)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0
    assert "log/0000000000000002" in said("restore", *arguments, "--dry-run", "--data", data)
    said("restore", *arguments, "--data", data)
    assert json.loads(said("inspect", "broadcasters", "main", "--json", "--data", data))["storage"].keys() < {
        *stored["storage"]
    }


def test_an_id_may_be_given_in_place_of_a_name(data: Path) -> None:
    assert id_from_string("rooms", str(A)) == A
    said("restore", "rooms", "--id", A, "--to", bookmarks(data)[0], "--data", data)
    assert storage(data) == ({}, None)
    assert bookmarks(data)[1:] != []


class Album(Actor["SqlEnv"]):
    """Has keys, a table and an alarm in a database of its own."""

    storage = "sql"

    async def add(self, name: str, due_s: float) -> None:
        self.ctx.storage.put("newest", name)
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS pictures (name)")
        self.ctx.storage.sql.exec("INSERT INTO pictures VALUES (?)", name)
        self.ctx.storage.set_alarm(due_s)

    async def clear(self) -> None:
        self.ctx.storage.delete_all()

    async def pictures(self) -> tuple[str | None, int, float | None]:
        count = self.ctx.storage.sql.exec("SELECT count(*) AS n FROM pictures").one()["n"]
        return self.ctx.storage.get("newest"), count, self.ctx.storage.get_alarm()

    async def now(self) -> str:
        return await self.ctx.storage.get_current_bookmark()

    async def back_to(self, bookmark: str) -> None:
        await self.ctx.storage.on_next_session_restore_bookmark(bookmark)

    async def alarm(self, info: object) -> None:
        raise AssertionError


@attrs.frozen
class SqlEnv:
    albums: Namespace[Album]


SQL_APP = App(env=SqlEnv, routes={})


async def on_album(folder: Path, *steps: Any) -> Any:
    platform = virtual_platform()
    async with open_node(
        SQL_APP,
        settings=SQL_APP.settings(),
        store=SharedStore(folder, platform=platform),
        platform=platform,
        log=structlog.get_logger(),
        objects=folder / "objects",
    ) as node:
        result = None
        for method, *args in steps:
            await trio.sleep(10)
            result = await getattr(node.env.albums.get_by_name("a"), method)(*args)
        return result, node.store.alarms()


def album(folder: Path, *steps: Any) -> Any:
    return trio.run(on_album, folder, *steps, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_object_with_a_database_of_its_own_is_shown_and_brought_back(tmp_path: Path) -> None:
    far = EPOCH_S + 10_000_000
    album(tmp_path, ("add", "one", far), ("add", "two", far + 1), ("clear",))
    facts = json.loads(said("inspect", "albums", "a", "--json", "--data", tmp_path))
    assert facts["storage"] == {}
    times = {row["time"]: row["bookmark"] for row in facts["bookmarks"]}
    assert len(times) >= 3
    before = [text for _, text in sorted(times.items())]
    dry = said("restore", "albums", "a", "--to", before[-1], "--dry-run", "--data", tmp_path)
    assert dry.startswith('would bring albums "a" back to')
    told = said("restore", "albums", "a", "--to", "2026-01-01T00:00:25Z", "--data", tmp_path)
    assert "pages have earlier contents" in told
    undo = told.splitlines()[-1].split()[-1]
    facts = json.loads(said("inspect", "albums", "a", "--json", "--data", tmp_path))
    assert (facts["storage"], facts["tables"], facts["alarm"]) == ({"newest": "two"}, {"pictures": 2}, far + 1)
    shown, alarms = album(tmp_path, ("pictures",))
    assert shown == ("two", 2, far + 1)
    assert [due for _, due in alarms] == [far + 1]
    said("restore", "albums", "a", "--to", undo, "--data", tmp_path)
    assert json.loads(said("inspect", "albums", "a", "--json", "--data", tmp_path))["storage"] == {}
    assert "is unknown" in refusal("restore", "albums", "a", "--to", f"{'f' * 8}{undo[8:]}", "--data", tmp_path)


def test_a_backup_beside_a_server_has_the_history_of_sql_objects(tmp_path: Path) -> None:
    data, copy, far = tmp_path / "data", tmp_path / "copy", EPOCH_S + 10_000_000
    known: dict[str, Any] = {}

    async def run() -> None:
        platform = virtual_platform(7)
        async with open_node(
            SQL_APP,
            settings=SQL_APP.settings(),
            store=SharedStore(data, platform=platform),
            platform=platform,
            log=structlog.get_logger(),
            objects=data / "objects",
        ) as node:
            stub, gone = node.env.albums.get_by_name("a"), node.env.albums.get_by_name("gone")
            for number in range(4):
                await trio.sleep(70 if number == 1 else 0.1)  # some of it is in the database, some in the log
                await stub.add(str(number), far + number)
                known[await stub.now()] = await stub.pictures()
            await gone.add("one", far)
            known["gone"] = await gone.now()
            await gone.clear()
            said("backup", copy, "--data", data)
            await stub.add("late", far)
            known["late"] = await stub.now()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    late, gone = known.pop("late"), known.pop("gone")
    said("restore", "--from", copy, "--data", data)
    assert album(data, ("pictures",))[0] == ("3", 4, far + 3)
    for bookmark, held in known.items():
        said("restore", "albums", "a", "--to", bookmark, "--data", data)
        assert album(data, ("pictures",))[0] == held
        album(data, ("back_to", max(known)))
        assert album(data, ("pictures",))[0] == ("3", 4, far + 3)
    assert "from after the backup was made" in refusal("restore", "albums", "a", "--to", late, "--data", data)
    said("restore", "albums", "gone", "--to", gone, "--data", data)
    facts = json.loads(said("inspect", "albums", "gone", "--json", "--data", data))
    assert (facts["storage"], facts["tables"]) == ({"newest": "one"}, {"pictures": 1})


def test_a_backup_of_a_damaged_object_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    album(data, ("add", "one", EPOCH_S + 10_000_000))
    (database,) = data.glob("objects/*/*/*.sqlite")
    content = bytearray(database.read_bytes())
    content[-20] ^= 1
    database.write_bytes(content)
    assert "cannot copy" in refusal("backup", tmp_path / "copy", "--data", data)
    assert not (tmp_path / "copy").exists()
