"""A copy of an object's database to another object: a look at it as of one moment, and a commit of all its pages."""

from __future__ import annotations

from typing import Protocol

import apsw
import trio

from runtime.errors import StorageFailed
from runtime.ids import ActorId
from runtime.platform import Platform
from runtime.storage.erase import committed
from runtime.storage.held_object import HeldObject
from runtime.storage.object_file import ObjectFile
from runtime.storage.object_keys import REGISTERED, Files, ObjectKeys
from runtime.storage.store import Store, WriteBatch


class OpenFiles(Files, Protocol):
    """The files that copies are made of and to."""

    def held(self, actor: ActorId, /) -> HeldObject | None:
        """An object whose file is open, or is being opened or closed."""
        ...

    def close_if_done(self, held: HeldObject, /) -> None:
        """Close the file of an object that has ended, unless somebody still needs it."""
        ...

    async def make_last(self, file: ObjectFile, /) -> None:
        """Sync the log. Raises: StorageFailed."""
        ...


class ObjectCopying:
    """A copy of what an object has committed (`Copying`).

    Args:
        source: of which a look is taken at once when its file is open. target: has none.
        files: opened and closed there. index: knows which objects there are.
    """

    def __init__(self, source: ActorId, target: ActorId, *, files: OpenFiles, index: Store, platform: Platform) -> None:
        self._source = source
        self._target = target
        self._files = files
        self._index = index
        self._platform = platform
        self._held: HeldObject | None = None
        self._look: apsw.Connection | None = None
        self._take(files.held(source))

    async def finish(self) -> None:
        """Wait until the copy is durable. Raises: StorageFailed."""
        while not self._has_look() and (held := self._files.held(self._source)) is not None:
            await (held.closed if held.released else held.opened).wait()
            self._take(held)
        if self._has_look():
            await self._write()
            return
        keys = ObjectKeys(self._source, self._files, history=None)
        await self._files.acquire(keys)
        try:
            self._take(self._files.held(self._source))
            await self._write()
        finally:
            self._files.release(keys)

    def give_up(self) -> None:
        """Let go of the source."""
        held, self._held = self._held, None
        look, self._look = self._look, None
        if look is not None:
            look.close()
        if held is not None:
            held.looks -= 1
            self._files.close_if_done(held)

    def _take(self, held: HeldObject | None) -> None:
        """On the loop, so that no commit comes between this look and those at other objects."""
        if held is None or held.released or held.file is None:
            return
        held.looks += 1
        self._held = held
        try:
            self._look = held.file.look()
            self._look.execute("BEGIN")
            self._look.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        except apsw.Error as error:
            self.give_up()
            raise StorageFailed(f"{held.file.path} cannot be read: {error}") from error

    def _has_look(self) -> bool:
        return self._look is not None

    async def _write(self) -> None:
        assert self._held is not None
        assert self._held.file is not None
        # The index knows it first: what a crash leaves of it is found by that.
        await committed(self._index.submit, WriteBatch(actor=self._target, sequence=0, writes={REGISTERED: b""}))
        keys = ObjectKeys(self._target, self._files, history=self._held.file.keeps)
        file, _, _ = await self._files.acquire(keys)
        try:
            with trio.CancelScope(shield=True):  # a file that is half written has an owner
                await self._platform.run_blocking(file.fill, self._look)
            await self._files.make_last(file)
        finally:
            self._files.release(keys)
