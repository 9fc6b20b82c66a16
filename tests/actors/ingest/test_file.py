"""Source `file`: every line once and in order, whatever happens to the file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.app import app
from actors.ingest.source import InvalidCursor, SourceFailed
from actors.ingest.sources import file as file_source
from actors.ingest.sources.file import file
from runtime.testing import start_server
from tests.actors.ingest.kit import Clock, drain, example, only, published, status, told, world


def lines(*numbers: int) -> bytes:
    return b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (n % 50)) for n in numbers)


def numbers(found: list[Any]) -> list[int]:
    return [one["n"] for one in found]


class Log:
    """A log and its reader: `read` gives what is new."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "app.jsonl"
        self.clock = Clock()
        self.options = {"path": str(self.path), "type": "line", "settle_s": 0, **options}
        self.cursor: str | None = None
        self.source = self.new_source()

    def new_source(self) -> Any:
        return file(world("s", self.clock), self.options)

    def write(self, content: bytes) -> None:
        with self.path.open("ab") as out:
            out.write(content)

    async def read(self) -> list[int]:
        self.cursor, found = await drain(self.source, self.cursor)
        return numbers(found)

    def rotate(self) -> None:
        rotated = sorted(self.path.parent.glob("app.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
        for path in rotated:
            path.rename(self.path.with_suffix(f".jsonl.{int(path.suffix[1:]) + 1}"))
        self.path.rename(self.path.with_suffix(".jsonl.1"))

    def copy_and_truncate(self) -> None:
        rotated = sorted(self.path.parent.glob("app.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
        for path in rotated:
            path.rename(self.path.with_suffix(f".jsonl.{int(path.suffix[1:]) + 1}"))
        shutil.copyfile(self.path, self.path.with_suffix(".jsonl.1"))
        os.truncate(self.path, 0)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


async def test_lines_come_once_and_the_last_half_waits(log: Log) -> None:
    log.write(lines(1, 2) + b'{"n":')
    assert await log.read() == [1, 2]
    assert await log.read() == []
    log.source = log.new_source()
    log.write(b"3}\n\n   \n" + lines(4))
    assert await log.read() == [3, 4]


async def test_ids_are_those_of_their_place(log: Log) -> None:
    log.write(lines(1, 2))
    first = await log.source.fetch(None)
    again = await log.new_source().fetch(None)
    assert (
        [draft.id for draft in first.signals]
        == [draft.id for draft in again.signals]
        == ["s:1:0", f"s:1:{len(lines(1))}"]
    )


async def test_a_renamed_file_is_read_to_its_end(log: Log) -> None:
    log.write(lines(1, 2, 3))
    await log.read()
    log.write(lines(4))
    log.rotate()
    log.write(lines(5))
    log.rotate()
    assert await log.read() == [4, 5]  # there is no new one yet
    log.write(lines(6, 7))
    log.rotate()
    log.write(lines(8))
    assert await log.read() == [6, 7, 8]


async def test_a_rotated_file_is_left_only_when_it_rests(tmp_path: Path) -> None:
    log = Log(tmp_path, settle_s=2)
    log.write(lines(1))
    await log.read()
    with log.path.open("ab") as old:
        log.rotate()
        log.write(lines(3))
        assert await log.read() == []
        log.clock.now += 1
        old.write(lines(2))  # its writer has not noticed yet
        old.flush()
        assert await log.read() == [2]
        log.clock.now += 1.5
        assert await log.read() == []
        log.clock.now += 1
        assert await log.read() == [3]


async def test_what_rotated_and_rested_while_nobody_looked_is_read_at_once(tmp_path: Path) -> None:
    log = Log(tmp_path, settle_s=2)
    log.write(lines(1))
    assert await log.read() == [1]
    for number in (2, 3, 4):
        log.rotate()
        log.write(lines(number))
        os.utime(log.path, ns=(0, 2_000_000_000_000_000_000 + number))
    log.source = log.new_source()
    renamed = log.path.with_suffix(".jsonl.1").stat().st_ctime
    log.clock.now = renamed + 1
    assert await log.read() == []
    log.source = log.new_source()
    log.clock.now = renamed + 3
    assert await log.read() == [2, 3, 4]


async def test_a_late_line_of_an_old_writer_does_not_bring_the_file_again(log: Log) -> None:
    log.write(lines(1))
    await log.read()
    with log.path.open("ab") as old:
        log.rotate()
        log.write(b"")
        assert await log.read() == []
        old.write(lines(2))
        old.flush()
        os.utime(log.path.with_suffix(".jsonl.1"), ns=(0, 2_000_000_000_000_000_000))
        assert await log.read() == []
    log.write(lines(3))
    assert await log.read() == [3]


async def test_what_was_truncated_before_its_first_line_was_read_is_in_its_copy(log: Log) -> None:
    log.write(b"")
    assert await log.read() == []
    for first in (1, 3):
        log.write(lines(first))
        log.copy_and_truncate()
        log.write(lines(first + 1))
        os.utime(log.path.with_suffix(".jsonl.1"), ns=(0, 2_000_000_000_000_000_000 + first))
    assert await log.read() == [1, 2, 3, 4]


async def test_a_truncated_file_goes_on_in_its_copy_and_then_anew(log: Log) -> None:
    log.write(lines(1, 2))
    await log.read()
    log.write(lines(3))
    log.copy_and_truncate()
    log.write(lines(*range(10, 20)))  # longer than before
    assert await log.read() == [3, *range(10, 20)]


async def test_a_file_that_was_replaced_begins_anew(log: Log) -> None:
    log.write(lines(1, 2))
    await log.read()
    log.path.unlink()
    with pytest.raises(SourceFailed, match="No such file") as raised:
        await log.read()
    assert raised.value.retry_s == 5
    log.write(lines(7))
    assert await log.read() == [7]


async def test_what_rotated_away_unread_is_gone_and_the_rest_is_read(log: Log) -> None:
    log.write(lines(1))
    await log.read()
    for number in (2, 3, 4):
        log.rotate()
        log.write(lines(number))
        os.utime(log.path, ns=(0, 2_000_000_000_000_000_000 + number))
    log.path.with_suffix(".jsonl.3").unlink()
    assert await log.read() == [2, 3, 4]


async def test_bad_lines_are_named_and_passed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "LINE_BYTES", 100)
    monkeypatch.setattr(file_source, "CHUNK_BYTES", 300)
    log.write(lines(1) + b"nonsense\n" + b"x" * 150 + b"\n" + b'{"n":2, "big": 1e999}\n' + b"\xff\n")
    log.write(b"y" * 2_000 + b"\n" + lines(3))
    found, where, cursor = [], [], None
    for _ in range(20):
        batch = await log.source.fetch(cursor)
        found += numbers(told(batch))
        where += [(one.where, one.reason[:9]) for one in batch.rejected]
        cursor = batch.cursor
    assert found == [1, 3]
    assert [place for place, _ in where] == ["line 2", "line 3", "line 4", "line 5", "line 6"]
    assert where[0][1] == "not JSON:"


async def test_a_batch_is_bounded_in_signals_and_bytes(log: Log) -> None:
    log.write(lines(*range(2_500)))
    batch = await log.source.fetch(None)
    assert (len(batch.signals), batch.more) == (1_000, True)
    assert await log.read() == list(range(2_500))
    log.write(b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 60_000) for n in range(200)))
    batch = await log.source.fetch(log.cursor)
    assert sum(len(draft.data_json) for draft in batch.signals) < 4 * 1024 * 1024
    assert await log.read() == list(range(200))


async def test_it_may_begin_at_the_end(tmp_path: Path) -> None:
    log = Log(tmp_path, **{"from": "end"})
    log.write(lines(1, 2) + b'{"n":')
    assert await log.read() == []
    log.write(b"3}\n")
    assert await log.read() == [3]


async def test_a_place_of_another_kind_is_refused(log: Log) -> None:
    log.write(lines(1))
    with pytest.raises(InvalidCursor, match="another name"):
        await log.source.fetch("17")


class Rotations(RuleBasedStateMachine):
    """Whatever the writer and the reader do in turns, the reader has seen what was written, once and in order."""

    @initialize(folder=st.integers(0, 2**62))
    def begin(self, folder: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.log = Log(Path(self.folder.name))
        self.written = 0
        self.seen: list[int] = []
        self.half = b""
        self.log.write(b"")
        self.stamp = 2_000_000_000_000_000_000
        self.read(restarts=False)  # what was rotated before the first look is not looked for

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def touch(self, path: Path | None = None) -> None:
        self.stamp += 10  # the clock of files may be too coarse to order what a test does
        os.utime(path or self.log.path, ns=(self.stamp, self.stamp))

    @rule(count=st.integers(1, 30), half=st.booleans())
    def write(self, count: int, half: bool) -> None:
        content = self.half + lines(*range(self.written, self.written + count))[len(self.half) :]
        self.written += count
        following = lines(self.written)
        self.log.write(content[len(self.half) :] if self.half else content)
        self.half = following[:5] if half else b""
        self.log.write(self.half)
        self.touch()

    @rule()
    @precondition(lambda self: not self.half)
    def rotate(self) -> None:
        self.log.rotate()
        self.log.write(b"")
        self.touch()

    @rule()
    @precondition(lambda self: not self.half and self.seen)
    def copy_and_truncate(self) -> None:
        self.log.copy_and_truncate()
        self.touch(self.log.path.with_suffix(".jsonl.1"))
        self.touch()

    @rule(restarts=st.booleans())
    def read(self, restarts: bool) -> None:
        if restarts:
            self.log.source = self.log.new_source()

        async def main() -> None:
            self.seen += await self.log.read()

        trio.run(main)
        assert self.seen == list(range(self.written))

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "seen"):
            assert self.seen == list(range(len(self.seen)))


Rotations.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRotations = Rotations.TestCase


async def test_the_example_of_the_page_runs(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    requests = example("source-file")
    path = Path(requests.options["path"])
    path.parent.mkdir()
    async with start_server(app, settings=only(requests)) as server:
        await trio.sleep(1)
        assert "No such file" in (await status(server, "requests"))["error"]
        await trio.Path(path).write_text('{"route": "/a", "time": 7}\nnonsense\n')
        await trio.sleep(10)
        await trio.Path(path).rename(f"{path}.1")
        await trio.Path(path).write_text('{"route": "/b", "time": 8}\n')
        await trio.sleep(10)
        found = await published(server)
        assert [(one.type, one.entity, one.tags) for one in found] == [
            ("request", "a", {"at": 7}),
            ("request", "b", {"at": 8}),
        ]
        shown = await status(server, "requests")
        assert (shown["produced"], shown["rejected"], shown["error"]) == (2, 1, "")
        assert shown["rejection"].startswith("line 2: not JSON")
        assert json.loads(shown["cursor"])
