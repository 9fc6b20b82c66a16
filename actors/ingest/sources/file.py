"""Source `file`: follows a file of JSON Lines as it grows, through rotation and truncation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from actors.ingest.mapping import ItemMapping, NoSignal
from actors.ingest.options import Options
from actors.ingest.rotation import MARK_BYTES, BeingRotated, Mark, Name, Rotation, places
from actors.ingest.source import Batch, Gathering, InvalidCursor, Rejected, Source, SourceFailed, World
from actors.signals import Draft

CHUNK_BYTES = 4 * 1024 * 1024
LINE_BYTES = 1024 * 1024  # ours: a longer line is passed over
REJECTED_MAX = 1_000  # bad lines of one batch
MISSING_RETRY_S = 5.0
READINGS = 5


@attrs.frozen(kw_only=True)
class Place:
    """What is in the cursor.

    Attributes:
        mark: which file.
        generation: how many files came before it. offset, line: what of it is published, in bytes and in lines.
        skipping: the offset is inside a line that is too long.
    """

    mark: Mark
    generation: int = 1
    offset: int = 0
    line: int = 0
    skipping: bool = False

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Read what `cursor` wrote. Raises: InvalidCursor."""
        try:
            device, inode, written_ns, length, digest, generation, offset, line, skipping = json.loads(cursor)
            found = Mark(device=device, inode=inode, written_ns=written_ns, length=length, digest=digest)
        except (ValueError, TypeError) as error:
            raise InvalidCursor(
                f"the stored place is not one of a file ({error}); give the source another name"
            ) from None
        return cls(mark=found, generation=generation, offset=offset, line=line, skipping=skipping)

    @property
    def cursor(self) -> str:
        """For the stream to keep."""
        return json.dumps(
            [*attrs.astuple(self.mark), self.generation, self.offset, self.line, self.skipping], separators=(",", ":")
        )


@attrs.define(eq=False)
class File:
    """Lines are published in their order; one that is not complete yet waits for its end.

    Args:
        from_end: with no stored place begin at the end of the file, instead of its beginning.
        settle_s: how long a rotated file must have rested before the next one is begun, because its writer may not
            have noticed yet.
    """

    world: World
    mapping: ItemMapping
    rotation: Rotation
    from_end: bool
    settle_s: float
    _resting: tuple[tuple[int, int, int], float] | None = attrs.field(default=None, init=False)

    async def fetch(self, cursor: str | None) -> Batch:
        """Read on. Raises: SourceFailed, InvalidCursor."""
        batch: Batch = await self.world.run_blocking(self._read_on, cursor)
        return batch

    def _read_on(self, cursor: str | None) -> Batch:
        for _ in range(READINGS):
            try:
                return self._read_once(cursor)
            except BeingRotated:
                continue  # look again
            except OSError as error:
                raise SourceFailed(
                    f"{error.filename or self.rotation.path}: {error.strerror}", retry_s=MISSING_RETRY_S
                ) from None
        raise SourceFailed(f"{self.rotation.path} is rotated too often to be read", retry_s=MISSING_RETRY_S)

    def _read_once(self, cursor: str | None) -> Batch:
        names = self.rotation.names()
        place = self._begin(names) if cursor is None else Place.parse(cursor)
        found = self.rotation.open(names, place.mark, place.offset)
        if found is None:
            if self.rotation.following(names, place.mark) is None:
                raise FileNotFoundError(2, "No such file", str(self.rotation.path))
            return Batch(Place(mark=place.mark.ended, generation=place.generation + 1).cursor, more=True)
        name, file = found
        with file:
            following = next(iter(names[names.index(name) + 1 :]), None)
            batch = self._read(file, place, following)
            # Whatever was read belongs to this file only if nobody truncated or renamed it meanwhile.
            if (place.mark.length and not place.mark.fits(file, place.offset)) or (
                places(self.rotation.names()) != places(names)
            ):
                raise BeingRotated(16, "is being rotated", str(name.path))
            return batch

    def _begin(self, names: Sequence[Name]) -> Place:
        newest = next((name for name in names if name.path == self.rotation.path), None)
        if newest is None:
            raise FileNotFoundError(2, "No such file", str(self.rotation.path))
        before_ns = max((name.written_ns for name in names if name != newest), default=-1)
        if self.from_end:
            with newest.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LINE_BYTES))
                rest = file.read(LINE_BYTES)
                offset = size - (len(rest) - (rest.rfind(b"\n") + 1))
                file.seek(0)
                if offset:
                    return Place(mark=Mark.of(file, file.read(min(offset, MARK_BYTES))), offset=offset)
        return Place(mark=Mark.of_none(before_ns))

    def _read(self, file: BinaryIO, place: Place, following: Name | None) -> Batch:
        file.seek(0)
        head = file.read(min(place.offset, MARK_BYTES))
        file.seek(place.offset)
        chunk = file.read(CHUNK_BYTES)
        whole = len(chunk) < CHUNK_BYTES
        last = whole and following is not None and self._has_settled(file, place, len(chunk))
        reading = _Reading(self, place)
        reading.take(chunk, last=last)
        after = reading.place
        taken = after.offset - place.offset
        if last and following is not None and taken == len(chunk):
            after = Place(mark=Mark.of(file, b"").ended, generation=place.generation + 1)
        elif taken:
            content = head + chunk[:taken] if len(head) < MARK_BYTES else head
            after = attrs.evolve(after, mark=Mark.of(file, content))
        more = after != place and (reading.full or not whole or after.generation > place.generation)
        return Batch(after.cursor, tuple(reading.gathering.signals), more, tuple(reading.rejected))

    def _has_settled(self, file: BinaryIO, place: Place, unread: int) -> bool:
        """Whether a rotated file, read to its end, has not changed for `settle_s`, so that its end is its end."""
        now = self.world.now()
        # A write and a rename both change ctime, and nobody can set it: after a long stop all that was rotated
        # meanwhile is read at once. On a disk whose clock is ahead of ours the file is watched instead.
        if now - os.fstat(file.fileno()).st_ctime >= self.settle_s:
            return True
        resting = (place.mark.device, place.mark.inode, place.offset + unread)
        if self._resting is None or self._resting[0] != resting:
            self._resting = (resting, now)
        return now - self._resting[1] >= self.settle_s


@attrs.define(eq=False)
class _Reading:
    """From bytes to signals and bad lines, up to the bounds of a batch."""

    file: File
    place: Place
    gathering: Gathering = attrs.field(factory=Gathering, init=False)
    rejected: list[Rejected] = attrs.field(factory=list[Rejected], init=False)
    full: bool = attrs.field(default=False, init=False)

    def take(self, chunk: bytes, *, last: bool) -> None:
        """Read whole lines; with `last` the end of the chunk ends a line too."""
        start = 0
        while start < len(chunk):
            end = chunk.find(b"\n", start)
            if end < 0:
                rest = len(chunk) - start
                if self.place.skipping or rest > LINE_BYTES:
                    self._pass_over(rest)
                elif last:
                    self._line(chunk[start:], rest)
                return
            if self.place.skipping:
                self._advance(end + 1 - start, lines=1)
            elif not self._line(chunk[start:end], end + 1 - start):
                self.full = True
                return
            start = end + 1

    def _line(self, text: bytes, size: int) -> bool:
        """One line; False when the batch has no room for it."""
        if len(self.rejected) >= REJECTED_MAX:
            return False
        if text.strip():
            if len(text) > LINE_BYTES:
                self._reject(f"{len(text):,} bytes; at most {LINE_BYTES:,}")
            else:
                try:
                    draft = self._draft(text)
                except NoSignal as error:
                    self._reject(str(error))
                else:
                    if not self.gathering.has_room(draft):
                        return False
                    self.gathering.add(draft)
        self._advance(size, lines=1)
        return True

    def _draft(self, text: bytes) -> Draft:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NoSignal(f"not JSON: {error}") from None
        item = self.file.mapping.item(value, self.file.world)
        if item.own:
            return item.draft
        return attrs.evolve(item.draft, id=self.file.world.id(f"{self.place.generation}:{self.place.offset}"))

    def _pass_over(self, size: int) -> None:
        if not self.place.skipping:
            self._reject(f"longer than {LINE_BYTES:,} bytes")
        self._advance(size, skipping=True)

    def _reject(self, reason: str) -> None:
        self.rejected.append(Rejected(f"line {self.place.line + 1}", reason))

    def _advance(self, size: int, *, lines: int = 0, skipping: bool = False) -> None:
        self.place = attrs.evolve(
            self.place, offset=self.place.offset + size, line=self.place.line + lines, skipping=skipping
        )


def file(world: World, options: Mapping[str, Any]) -> Source:
    """A source that follows a file. Raises: InvalidOptions."""
    read = Options("file", options)
    source = File(
        world=world,
        mapping=ItemMapping.of(read, items=False, entity=world.name),
        rotation=Rotation(Path(read.text("path"))),
        from_end=read.choice("from", ("start", "end")) == "end",
        settle_s=read.number("settle_s", 2, 0, 3_600),
    )
    read.done()
    return source
