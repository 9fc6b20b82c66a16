"""One object of a SQL class whose file is open, and its batches that are not durable yet."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from runtime.storage.object_file import ObjectFile
from runtime.storage.object_keys import ObjectKeys
from runtime.storage.store import Done


@attrs.define(eq=False)
class Submitted:
    """A batch until it is durable: in the log of the object, and in the index if that has to know it."""

    done: Done
    synced: bool = False
    indexed: bool = True
    error: Exception | None = None


@attrs.define(eq=False)
class HeldObject:
    """An object whose file is open, is being opened, or is being closed.

    Attributes:
        failed: the batches from one on are lost. syncing: a sync task has it. working: a thread opens, checkpoints or
        closes it. held_back: its log is too long, and nobody is answered until it has been moved into the database.
        looks: copies that are being made of it. released: its instance has ended. checkpointed, checkpointed_s: the
        length of the log at the last checkpoint, and when that was.
    """

    keys: ObjectKeys
    opened: trio.Event = attrs.field(factory=trio.Event)
    closed: trio.Event = attrs.field(factory=trio.Event)
    file: ObjectFile | None = None
    submitted: deque[Submitted] = attrs.field(factory=deque)
    failed: Exception | None = None
    syncing: bool = False
    working: bool = False
    held_back: bool = False
    looks: int = 0
    released: bool = False
    checkpointed: int = 0
    checkpointed_s: float = attrs.field(factory=trio.current_time)
