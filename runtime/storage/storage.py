"""What an actor sees as `ctx.storage`: synchronous typed reads and writes, one alarm, transactions.

No method except `sync` and `transaction` ever waits, so no other event of the actor comes between two storage
calls. Everything written up to the next real wait is one atomic batch, made durable in the background.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from runtime import codec
from runtime.errors import ActorError
from runtime.limits import StorageLimits
from runtime.storage.backend import Keyspace
from runtime.storage.gate import StorageGate
from runtime.storage.keys import PRIVATE, check_value, key_bytes, key_text, keys_bytes
from runtime.storage.reads import StorageReads
from runtime.storage.sql import NO_SQL, Sql
from runtime.storage.store import Keep, WriteBatch
from runtime.storage.sync_kv import NO_KV, SyncKv
from runtime.storage.transaction import Transaction

T = TypeVar("T")
D = TypeVar("D")


class Storage(StorageReads):
    """The durable keys and the alarm of one actor.

    Keys are text up to 2,048 bytes of UTF-8, values anything that `runtime.codec` encodes, up to 131,072 bytes; in SQL
    classes a key and its value together up to 2 MiB. A call takes at most 128 keys. Key order is the order of the
    UTF-8 bytes.
    """

    def __init__(
        self,
        keys: Keyspace,
        gate: StorageGate,
        *,
        limits: StorageLimits,
        has_alarm_handler: bool,
        now: Callable[[], float],
        lineage: str,
        takes_alarms: bool = True,
    ) -> None:
        super().__init__(keys, gate, limits)
        self._lineage = lineage
        self._has_alarm_handler = has_alarm_handler
        self._takes_alarms = takes_alarms
        self._now = now
        self._alarm_hidden = False  # the handler runs and has set no alarm anew
        self._transactions: tuple[Transaction, ...] = ()  # those that run, the innermost last
        self._snapshots: dict[bytes, Any] = {}
        self._private: dict[bytes, bytes | None] | None = None  # keys of the runtime in the open batch
        self._sql = None if keys.database is None else Sql(keys.database, gate.check, self._begin_confirmed)
        self._kv = None if keys.database is None else SyncKv(self)

    # ── SQL classes ──

    @property
    def sql(self) -> Sql:
        """SQL on the actor's own database.

        Raises:
            RuntimeError: the class has no `storage = "sql"`.
        """
        if self._sql is None:
            raise RuntimeError(NO_SQL)
        return self._sql

    @property
    def kv(self) -> SyncKv:
        """The synchronous keys of Durable Objects: the same keys, with a live iterator.

        Raises:
            RuntimeError: the class has no `storage = "sql"`.
        """
        if self._kv is None:
            raise RuntimeError(NO_KV)
        return self._kv

    # ── writes ──

    def put(self, key: str, value: object, *, allow_unconfirmed: bool = False) -> None:
        """Set a key. What is stored is independent of the value from here on.

        Args:
            key: up to 2,048 bytes of UTF-8.
            value: anything that `runtime.codec` encodes, up to 131,072 bytes encoded.
            allow_unconfirmed: effects of the actor need not wait until this write is durable.

        Raises:
            LimitExceeded: key or value is too large.
            TypeError: the value cannot be stored; the message names the part.
        """
        self._gate.check()
        name, data = key_bytes(key, self._limits), codec.encode(value)
        check_value(key, data, self._limits)
        self._begin(confirmed=not allow_unconfirmed)
        self._write(name, data)

    def put_many(self, entries: Mapping[str, object], *, allow_unconfirmed: bool = False) -> None:
        """Set up to 128 keys; none when one of them is refused. Raises: as `put`."""
        self._gate.check()
        names = keys_bytes(entries, self._limits)
        values = [codec.encode(value) for value in entries.values()]
        for key, data in zip(entries, values, strict=True):
            check_value(key, data, self._limits)
        self._begin(confirmed=not allow_unconfirmed)
        for name, data in zip(names, values, strict=True):
            self._write(name, data)

    def delete(self, key: str, *, allow_unconfirmed: bool = False) -> bool:
        """Remove a key; whether it existed."""
        self._gate.check()
        return self._delete([key_bytes(key, self._limits)], confirmed=not allow_unconfirmed) == 1

    def delete_many(self, keys: Iterable[str], *, allow_unconfirmed: bool = False) -> int:
        """Remove up to 128 keys; how many of them existed."""
        self._gate.check()
        return self._delete(keys_bytes(keys, self._limits), confirmed=not allow_unconfirmed)

    def delete_all(self) -> None:
        """Remove every key, every table and the alarm, in the open batch.

        Raises:
            RuntimeError: inside a transaction.
        """
        self._gate.check()
        if self._transactions:
            raise RuntimeError("Cannot call delete_all() within a transaction")
        self._begin(confirmed=True)
        self._gate.clearing()
        self._private = None
        self._overlay.clear(keep_alarm=False)
        self._snapshots.clear()

    async def sync(self) -> None:
        """Wait until everything written so far is durable; other events may come in between.

        Inside a transaction this waits for what was written before the transaction.
        """
        self._gate.check()
        await self._gate.sync()

    # ── alarm ──

    def get_alarm(self) -> float | None:
        """When the alarm is due (wall clock, seconds), None without one.

        While the alarm handler runs this is None unless the handler set it anew (as in Durable Objects).
        """
        self._gate.check()
        return None if self._alarm_hidden else self._overlay.alarm()

    def set_alarm(self, time_s: float) -> None:
        """Set the one alarm, replacing an earlier one; a time that is past means now.

        Args:
            time_s: wall clock, seconds since the Unix epoch.

        Raises:
            TypeError: the time is not positive, or the class has no `alarm` handler.
        """
        self._gate.check()
        if not self._has_alarm_handler:
            raise TypeError("Your actor class must have an alarm() handler in order to call set_alarm()")
        due = max(_alarm_time(time_s), self._now())
        if due == self._overlay.alarm() and not self._alarm_hidden:
            return
        self._begin(confirmed=True)
        self._overlay.set_alarm(due)
        self._alarm_hidden = False

    def delete_alarm(self) -> None:
        """Remove the alarm. While the handler runs: that run goes on, and is not tried again if it fails."""
        self._gate.check()
        if self._overlay.alarm() is not None:
            self._begin(confirmed=True)
            self._overlay.set_alarm(None)

    # ── point-in-time recovery ──

    @property
    def lineage(self) -> str:
        """A text that changes with every restore, of this actor or of the whole data directory."""
        restored = self._overlay.restored()
        return self._lineage if restored is None else f"{self._lineage}.{restored:x}"

    async def get_current_bookmark(self) -> str:
        """A bookmark of now, once everything written so far is durable; other events may come in between.

        Bookmarks compare as texts in the order of the commits. (Durable Objects: `getCurrentBookmark`.)
        """
        await self.sync()
        return await self._overlay.bookmark()

    async def get_bookmark_for_time(self, time_s: float) -> str:
        """A bookmark of a time: nothing from after it, and at most the second before it is missing.

        (Durable Objects: `getBookmarkForTime`, approximately.)

        Args:
            time_s: wall clock, seconds since the Unix epoch; at most 30 days ago as a rule (server.history_days).

        Raises:
            InvalidBookmark: the history that is kept begins later.
        """
        self._gate.check()
        return await self._overlay.bookmark_at(time_s)

    async def on_next_session_restore_bookmark(self, bookmark: str) -> str:
        """Let the next instance begin with the keys and the alarm of then; `ctx.abort()` ends this one.

        What is written until then is undone, too. (Durable Objects: `onNextSessionRestoreBookmark`.)

        Returns:
            A bookmark of now, which leads back again.

        Raises:
            InvalidBookmark: the bookmark is unknown, too old, or of other data.
            RuntimeError: inside a transaction.
        """
        self._gate.check()
        if self._transactions:
            raise RuntimeError("Cannot call on_next_session_restore_bookmark() within a transaction")
        point = await self._overlay.point(bookmark)
        self._begin(confirmed=True)
        self._overlay.restore_next(point)
        return await self.get_current_bookmark()

    # ── transactions ──

    async def transaction(self, fn: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `fn` with every other event kept out; on an exception undo what was written inside and raise it.

        Durable Objects: `transaction()`, a critical section plus a savepoint. Plain storage calls inside join the
        transaction. Effects that leave while it runs do not wait for its writes, which count from its end.
        """
        self._gate.check()

        async def section() -> Callable[[], T]:
            # The outcome leaves the section as a value: an exception would destroy the instance.
            transaction = self._enter(defers=True)
            try:
                value = await fn(transaction)
            except Exception as error:  # noqa: BLE001 -- raised again outside of the section
                self._undo_to(transaction)
                return _raiser(error)
            except BaseException:
                self._undo_to(transaction)
                raise
            self._commit(transaction)
            return lambda: value

        result = await self._gate.critical_section(section)
        return result()

    def transaction_sync(self, fn: Callable[[], T]) -> T:
        """Run `fn`, which must not wait; on an exception undo what was written inside and raise it.

        Durable Objects: `transactionSync()`. It belongs to the surrounding batch, and begins one even when nothing is
        written.
        """
        self._gate.check()
        self._begin_confirmed()
        transaction = self._enter(defers=False)
        try:
            value = fn()
        except BaseException:
            self._undo_to(transaction)
            raise
        self._commit(transaction)
        return value

    def _enter(self, *, defers: bool) -> Transaction:
        transaction = Transaction(self, self._overlay.mark(), self._alarm_hidden, defers=defers)
        self._transactions += (transaction,)
        return transaction

    def _commit(self, transaction: Transaction) -> None:
        if transaction.state != "open":
            return
        assert self._transactions[-1] is transaction
        self._transactions = self._transactions[:-1]
        self._overlay.keep()
        transaction.state = "committed"
        if transaction.confirmed_writes:
            if any(outer.defers for outer in self._transactions):
                self._transactions[-1].confirmed_writes = True
            else:
                self._gate.wrote(confirmed=True)

    def _undo_to(self, transaction: Transaction) -> None:
        """Take back a transaction and those inside it; nothing when it has ended."""
        while transaction.state == "open":
            last = self._transactions[-1]
            self._transactions = self._transactions[:-1]
            last.state = "rolled back"
            self._overlay.undo(last.mark)
            self._alarm_hidden = last.alarm_hidden
            self._snapshots.clear()
            for key, value in (self._private or {}).items():
                self._begin_confirmed()
                self._overlay.put(key, value)

    # ── for `durable`: a decoded value next to its bytes ──

    def read_snapshot(self, key: bytes, decode: Callable[[bytes | None], T]) -> T:
        """The decoded value of a key; decoded once, and again after it was written or rolled back."""
        self._gate.check()
        if key not in self._snapshots:
            self._snapshots[key] = decode(self._overlay.get(key))
        value: T = self._snapshots[key]
        return value

    def write_snapshot(self, key: bytes, data: bytes, value: object) -> None:
        """Set a key to bytes whose decoded value is known. Raises: LimitExceeded."""
        self._gate.check()
        check_value(key_text(key), data, self._limits)
        self._begin(confirmed=True)
        self._write(key, data)
        self._snapshots[key] = value

    # ── for what the runtime keeps with an actor ──

    def get_private(self, key: bytes) -> bytes | None:
        """The value of a key of the runtime's own, which no app sees."""
        return self._overlay.get(PRIVATE + key)

    def put_private(self, key: bytes, value: bytes | None) -> None:
        """Set one; None deletes. It joins the open batch, and no rollback of a transaction undoes it."""
        self._gate.check()
        self._begin(confirmed=True)
        self._overlay.put(PRIVATE + key, value)
        self._private = {**(self._private or {}), PRIVATE + key: value}

    def list_private(self, prefix: bytes) -> dict[bytes, bytes]:
        """All that begin with something."""
        pairs = self._overlay.list(PRIVATE + prefix, None, None, False)
        return {key[1:]: value for key, value in pairs if key[1:].startswith(prefix)}

    # ── for the actor's cell ──

    async def prepare(self) -> float | Keep | None:
        """Open what has to be opened, before the instance is constructed.

        Returns:
            The alarm, when the index of alarms did not know it; else KEEP.

        Raises:
            StorageFailed: it cannot be opened.
        """
        return await self._overlay.prepare()

    def alarm_is_due(self, scheduled_time: float) -> bool:
        """Whether an alarm scheduled for this time is still set, or was moved to one that has come too."""
        due = self._overlay.alarm()
        return due is not None and due <= max(scheduled_time, self._now())

    def close(self) -> None:
        """The instance has ended."""
        self._overlay.close()

    def take_batch(self) -> WriteBatch | None:
        """Seal the open batch: for the cell, at each real wait. None when nothing was written or a transaction runs.

        Batches are numbered 1, 2, 3 … per Storage. One whose writes were rolled back is sealed empty.

        Raises:
            ActorError: it sets an alarm, and this actor may have none; nothing of the batch is stored.
        """
        if self._transactions:
            return None
        if not self._takes_alarms and self._overlay.alarm() is not None:
            raise ActorError("Facets currently cannot set alarms.")
        self._private = None
        return self._overlay.seal()

    @property
    def sequence(self) -> int:
        """The number of the newest batch with writes: the open one, else the last sealed one; 0 before the first.

        While an asynchronous transaction runs its writes do not count.
        """
        counts = self._overlay.is_open and not self._defers
        return self._overlay.last_sealed + counts

    def committed(self, sequence: int) -> None:
        """Batches up to this number are durable: reads of them go to the store from here on."""
        self._overlay.committed(sequence)

    def drop_open(self) -> None:
        """Forget the open batch: the instance was destroyed."""
        for transaction in self._transactions:
            transaction.state = "rolled back"
        self._transactions = ()
        self._overlay.drop_open()
        self._snapshots.clear()
        self._private = None

    def begin_alarm(self) -> None:
        """The alarm handler starts: its alarm is out of sight."""
        self._alarm_hidden = True

    def end_alarm(self, *, success: bool) -> None:
        """The alarm handler ended.

        At success, unless a new alarm was set, the alarm's deletion joins the open batch, so that it becomes durable
        with the handler's last writes (Durable Objects: the alarm is deleted only then). At failure it stays.
        """
        if self._alarm_hidden and success:
            self._gate.check()
            self._begin(confirmed=True)
            self._overlay.set_alarm(None)
        self._alarm_hidden = False

    # ── helpers ──

    def _begin(self, *, confirmed: bool) -> None:
        """Before each write: open a batch, so that it has a number, and let the gate know, or refuse."""
        self._overlay.begin()
        if self._defers:
            self._gate.wrote(confirmed=False)
            self._transactions[-1].confirmed_writes |= confirmed
        else:
            self._gate.wrote(confirmed=confirmed)

    @property
    def _defers(self) -> bool:
        return bool(self._transactions) and any(transaction.defers for transaction in self._transactions)

    def _begin_confirmed(self) -> None:
        self._begin(confirmed=True)

    def _write(self, key: bytes, data: bytes | None) -> None:
        self._overlay.put(key, data)
        if self._snapshots:
            self._snapshots.pop(key, None)

    def _delete(self, keys: Iterable[bytes], *, confirmed: bool) -> int:
        existing = [key for key in dict.fromkeys(keys) if self._overlay.get(key) is not None]
        self._begin(confirmed=confirmed)  # also for none: effects wait for it like for any write (as on workerd)
        for key in existing:
            self._write(key, None)
        return len(existing)


def _raiser(error: Exception) -> Callable[[], Any]:
    def raise_() -> Any:
        raise error

    return raise_


def _alarm_time(time_s: object) -> float:
    if isinstance(time_s, bool) or not isinstance(time_s, int | float):
        raise TypeError(f"set_alarm() needs seconds since the Unix epoch; got {time_s!r:.60}")
    if not 0 < time_s < math.inf:
        raise TypeError(f"set_alarm() cannot be called with an alarm time <= 0 or infinite; got {time_s!r}")
    return float(time_s)
