"""Planted bugs that were written from the table of guarantees and the runtime alone, before any claim was read."""

from __future__ import annotations

from functools import partial

from actors.log import RecentIds
from runtime import codec
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container
from runtime.namespace.stub import _StubCall
from runtime.sim.mutants import Put, mutant
from runtime.storage.durable import durable
from runtime.storage.group_writer import GroupWriter
from runtime.storage.overlay import Overlay
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP

quitting = partial(mutant, "tests/sim/errands.py", "quitting", blind=True)
restoring = partial(mutant, "tests/sim/notebooks.py", "restoring", blind=True)
upgrading = partial(mutant, "tests/sim/upgrades.py", "upgrading", blind=True)
service = partial(mutant, "actors.scenarios", blind=True)


@quitting(row="G1", median=3)
def an_actor_is_forgotten_while_a_call_has_a_place_with_it(put: Put) -> None:
    real = Container.empty

    def empty(self):
        calls, self.calls = self.calls, 0
        try:
            return real.fget(self)
        finally:
            self.calls = calls

    put(Container, "empty", property(empty))


@quitting(row="G4")
def calls_that_waited_for_the_last_instance_come_newest_first(put: Put) -> None:
    real = Container.cell_settled

    def cell_settled(self):
        if self._waiting is not None:
            self._waiting.reverse()
        real(self)

    put(Container, "cell_settled", cell_settled)


@restoring(row="G5")
def answers_do_not_wait_for_what_a_transaction_wrote(put: Put) -> None:
    real = Storage._commit

    def commit(self, transaction):
        transaction.confirmed_writes = False
        real(self, transaction)

    put(Storage, "_commit", commit)


@mutant("tests/sim/errands.py", "hurrying", row="G6", blind=True)
def a_commit_hides_what_was_written_again_meanwhile(put: Put) -> None:
    real = Overlay.committed

    def committed(self, sequence):
        for batch in self._unconfirmed or ():
            if batch.sequence <= sequence:
                for key in batch.writes:
                    self._sealed.pop(key, None)
        real(self, sequence)

    put(Overlay, "committed", committed)


@service("ingesting", row="G7")
def an_alarm_that_is_set_by_its_own_handler_goes_with_the_old_one(put: Put) -> None:
    real = Storage.end_alarm

    def end_alarm(self, *, success):
        self._alarm_hidden = True
        real(self, success=success)

    put(Storage, "end_alarm", end_alarm)


@restoring(row="G7", median=2)
def an_alarm_that_a_restore_brings_back_is_not_planned(put: Put) -> None:
    real = Overlay.prepare

    async def prepare(self):
        await real(self)
        return KEEP

    put(Overlay, "prepare", prepare)


@quitting(row="G9", median=3)
def a_message_that_is_dropped_keeps_its_place(put: Put) -> None:
    put(_StubCall, "dropped", CallJob.dropped)


@upgrading(row="G10")
def state_of_newer_code_begins_anew(put: Put) -> None:
    real = durable._decode

    def decode(self, data):
        version = self._version if data is None else codec.decode(data, tuple[int, dict[str, object]])[0]
        return self._state_class() if version > self._version else real(self, data)

    put(durable, "_decode", decode)


@upgrading(row="G10")
def old_state_takes_the_newest_step_only(put: Put) -> None:
    real = durable._decode

    def decode(self, data):
        if data is not None:
            version, fields = codec.decode(data, tuple[int, dict[str, object]])
            if version < self._version:
                return codec.structure(self._upgrades[self._version - 1](fields), self._state_class)
        return real(self, data)

    put(durable, "_decode", decode)


@restoring(row="G11", median=5)
def what_is_written_after_a_restore_goes_to_the_old_place(put: Put) -> None:
    real = GroupWriter._restore

    def restore(self, actor, point):
        held = self._find(actor)
        real(self, actor, point)
        if held is not None:
            self._actors[actor.namespace, actor.raw] = held

    put(GroupWriter, "_restore", restore)


@service("hibernating", row="G3", median=2)
def what_is_old_by_the_clock_is_forgotten_at_a_start(put: Put) -> None:
    real = RecentIds.rebuild

    def rebuild(self, log, state, now_ms):
        kept, self._kept = self._kept, 0
        yield from real(self, log, state, now_ms)
        self._kept = kept

    put(RecentIds, "rebuild", rebuild)
