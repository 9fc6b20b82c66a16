"""Source `command`: runs are numbered, bounded and end; what they print is published once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.app import app
from actors.ingest.process import Ended, run_command
from actors.ingest.source import InvalidCursor, InvalidOptions, SourceFailed
from actors.ingest.sources.command import command
from runtime.testing import start_server
from tests.actors.ingest.kit import example, only, published, status, told, until, world


class Program:
    """A program that a test plays."""

    def __init__(self, *outputs: bytes, code: int = 0, stderr: bytes = b"") -> None:
        self.outputs = list(outputs)
        self.code, self.stderr = code, stderr
        self.env: list[Mapping[str, str]] = []

    async def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdout_bytes: int
    ) -> Ended:
        self.env.append(env)
        run = int(env["HELIOGRAPH_RUN"])
        return Ended(code=self.code, stdout=self.outputs[min(run, len(self.outputs)) - 1], stderr=self.stderr)


def source(program: Any, **options: Any) -> Any:
    return command(world("c"), {"argv": ["x"], "type": "t", **options}, program)


async def test_runs_are_numbered_and_made_again_with_the_same_number() -> None:
    program = Program(b'{"n":1}\n{"n":1}\n', b'{"n":2}\n')
    first = await source(program).fetch(None)
    again = await source(program).fetch(None)
    assert [draft.id for draft in first.signals] == [draft.id for draft in again.signals] == ["c:1:1", "c:1:2"]
    second = await source(program).fetch(first.cursor)
    assert told(second) == [{"n": 2}]
    assert [env["HELIOGRAPH_RUN"] for env in program.env] == ["1", "1", "2"]


async def test_a_line_with_an_id_is_published_once_whatever_run_prints_it() -> None:
    program = Program(b'{"id":"a"}\n', b'{"id":"a"}\n{"id":"b"}\n{"id":"b"}\n')
    asked = source(program, id="/id")
    first = await asked.fetch(None)
    second = await asked.fetch(first.cursor)
    assert [draft.id for draft in second.signals] == ["c:b"]


async def test_lines_without_ids_do_not_make_the_cursor_grow() -> None:
    program = Program(b'{"n":1}\n' * 500)
    cursor = None
    for _ in range(3):
        cursor = (await source(program).fetch(cursor)).cursor
    assert cursor == '[3,["","",""]]'


async def test_a_bad_line_is_named_and_the_others_count() -> None:
    batch = await source(Program(b'{"n":1}\nnonsense\n\n{"n":2}')).fetch(None)
    assert told(batch) == [{"n": 1}, {"n": 2}]
    assert [one.where for one in batch.rejected] == ["run 1, line 2"]


async def test_a_run_that_fails_publishes_nothing_and_says_why() -> None:
    with pytest.raises(SourceFailed, match="exit code 3: the end"):
        await source(Program(b'{"n":1}\n', code=3, stderr=b"the end\n")).fetch(None)
    with pytest.raises(SourceFailed, match="ended by signal 9"):
        await source(Program(b"", code=-9)).fetch(None)
    with pytest.raises(SourceFailed, match="1,001 lines; at most 1,000"):
        await source(Program(b'{"n":1}\n' * 1_001)).fetch(None)
    with pytest.raises(SourceFailed, match="more than 10 bytes"):
        await source(Program(b"x" * 11), stdout_bytes=10).fetch(None)
    with pytest.raises(SourceFailed, match="4 MiB"):
        await source(Program((b'{"x":"' + b"x" * 60_000 + b'"}\n') * 100), stdout_bytes=10_000_000).fetch(None)


async def test_a_place_of_another_kind_is_refused() -> None:
    for cursor in ("nonsense", "[1]", '["a", ["", "", ""]]'):
        with pytest.raises(InvalidCursor, match="another name"):
            await source(Program(b"")).fetch(cursor)


def test_a_mistake_in_the_options_is_named() -> None:
    for options, said in (
        ({"argv": "ls -l"}, "options.argv"),
        ({"argv": []}, "at least 1"),
        ({"shell": True}, "shell"),
    ):
        with pytest.raises(InvalidOptions, match=said):
            source(Program(b""), **options)


@pytest.mark.real
async def test_output_is_bounded_and_the_end_of_the_errors_kept() -> None:
    code = "import sys; sys.stderr.write('e' * 100_000 + 'end'); print('x' * 100_000)"
    ended = await run(code, stdout_bytes=1_000_000)
    assert (ended.code, len(ended.stdout), ended.stderr[-4:], len(ended.stderr)) == (0, 100_001, b"eend", 4_096)
    with trio.fail_after(10):
        ended = await run("while True: print('x' * 1_000)", stdout_bytes=5_000)
    assert len(ended.stdout) == 5_001


@pytest.mark.real
async def test_a_run_that_takes_too_long_is_stopped_with_everything_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    with trio.fail_after(15), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run(code))
            await until(lambda: pids.exists() and " " in pids.read_text())
            scope.cancel()
    for pid in (await trio.Path(pids).read_text()).split():
        await until(lambda pid=int(pid): not _runs(pid))


async def run(code: str, stdout_bytes: int = 1_000) -> Ended:
    return await run_command([sys.executable, "-c", code], env={}, cwd=None, stdout_bytes=stdout_bytes)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"  # dead, and nobody in this container collects it


@pytest.mark.real
async def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = (
        "import json, os, sys\n"
        "print(json.dumps({'host': 'h1', 'argv': sys.argv[1:], 'token': os.environ['BACKUP_TOKEN']}))\n"
    )
    await trio.Path(tmp_path / "check_backup.py").write_text(script)
    async with start_server(app, settings=only(example("source-command"))) as server:
        await server.run_alarm(server.env.ingests.get_by_name("backup"))

        async def done() -> bool:
            shown = await status(server, "backup")
            assert not shown["error"]
            return bool(shown["last_success"])

        await until(done)
        (found,) = await published(server)
        assert (found.type, found.entity, found.data["argv"]) == ("backup.state", "h1", ["--json"])
        assert found.data["token"] == "backup_token-0123456789abcdef"
