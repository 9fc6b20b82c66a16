"""Source `command`: runs a program; each line of JSON that it prints becomes a signal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from actors.ingest.mapping import Item, ItemMapping, NoSignal
from actors.ingest.options import Options
from actors.ingest.polled import Place
from actors.ingest.process import RunCommand, run_command
from actors.ingest.source import BATCH_SIGNALS, Batch, InvalidCursor, Rejected, Source, SourceFailed, World
from runtime import Secret

STDOUT_BYTES = 1024 * 1024
SHOWN_CHARACTERS = 400


@attrs.frozen(kw_only=True)
class Command:
    """Its runs are numbered; a run whose lines were not stored is made again with the same number.

    The program finds the number in `HELIOGRAPH_RUN` and the time the run was due in `HELIOGRAPH_DUE` (Unix seconds).
    A line with an id of its own is published once, however many runs print it.
    """

    world: World
    argv: tuple[str, ...]
    env: Mapping[str, Secret]
    cwd: Path | None
    stdout_bytes: int
    mapping: ItemMapping
    run: RunCommand

    async def fetch(self, cursor: str | None) -> Batch:
        """Run it once. Raises: SourceFailed, InvalidCursor."""
        number, place = _parse(cursor)
        number += 1
        env = {name: value.value for name, value in self.env.items()}
        env |= {"HELIOGRAPH_RUN": str(number), "HELIOGRAPH_DUE": f"{self.world.due():.3f}"}
        try:
            ended = await self.run(self.argv, env=env, cwd=self.cwd, stdout_bytes=self.stdout_bytes)
        except OSError as error:
            raise SourceFailed(f"{self.argv[0]} cannot be started: {error.strerror or error}") from None
        if len(ended.stdout) > self.stdout_bytes:
            raise SourceFailed(f"it printed more than {self.stdout_bytes:,} bytes; raise options.stdout_bytes")
        if ended.code != 0:
            how = f"exit code {ended.code}" if ended.code > 0 else f"ended by signal {-ended.code}"
            end = ended.stderr.decode(errors="replace").strip()[-SHOWN_CHARACTERS:]
            raise SourceFailed(f"{how}: {end}" if end else how)
        offered = self._items(number, ended.stdout)
        if len(offered) > BATCH_SIGNALS:
            raise SourceFailed(f"it printed {len(offered):,} lines; at most {BATCH_SIGNALS:,} in one run")
        batch = place.publish(offered)
        if batch.more:
            raise SourceFailed("its signals take more than 4 MiB; print less in one run")
        return attrs.evolve(batch, cursor=json.dumps([number, json.loads(batch.cursor)], separators=(",", ":")))

    def _items(self, number: int, stdout: bytes) -> list[tuple[str | None, Item | Rejected]]:
        found: list[tuple[str | None, Item | Rejected]] = []
        for line, text in enumerate(stdout.splitlines(), 1):
            if not text.strip():
                continue
            try:
                item = self.mapping.item(json.loads(text), self.world)
            except (NoSignal, ValueError, RecursionError) as error:
                found.append((None, Rejected(f"run {number}, line {line}", str(error))))
                continue
            if item.own:
                found.append((item.key, item))
            else:
                draft = attrs.evolve(item.draft, id=self.world.id(f"{number}:{line}"))
                found.append((None, attrs.evolve(item, draft=draft)))
        return found


def command(world: World, options: Mapping[str, Any], run: RunCommand = run_command) -> Source:
    """A source that runs a program. Raises: InvalidOptions."""
    read = Options("command", options)
    source = Command(
        world=world,
        argv=read.texts("argv", least=1),
        env=read.secret_table("env"),
        cwd=Path(read.text("cwd")) if read.has("cwd") else None,
        stdout_bytes=read.whole("stdout_bytes", STDOUT_BYTES, 1, 16 * 1024 * 1024),
        mapping=ItemMapping.of(read, items=False, entity=world.name),
        run=run,
    )
    read.done()
    return source


def _parse(cursor: str | None) -> tuple[int, Place]:
    if cursor is None:
        return 0, Place()
    try:
        number, place = json.loads(cursor)
        if not isinstance(number, int):
            raise TypeError("no run number")
    except (ValueError, TypeError) as error:
        raise InvalidCursor(
            f"the stored place is not one of a command ({error}); give the source another name"
        ) from None
    return number, Place.parse(json.dumps(place))
