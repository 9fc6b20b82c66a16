"""Planted bugs: patches of the runtime that a simulation must find. The shipped code has none of them.

Each is a function that patches through `put(owner, name, value)`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import attrs

from runtime.actor.cell import Cell
from runtime.actor.input_gate import InputGate
from runtime.actor.output_gate import OutputGate
from runtime.namespace.alarms import AlarmScheduler
from runtime.namespace.container import Container
from runtime.storage import database_file
from runtime.storage.commit_queue import CommitQueue
from runtime.storage.shared import SharedStore
from runtime.storage.storage import Storage

Put = Callable[[object, str, object], None]


@attrs.frozen
class Mutant:
    """A planted bug.

    Attributes:
        plant: patches the runtime. scenario: that must find it. faults: that it needs.
        seeds: within so many, four times the measured median at least.
    """

    name: str
    plant: Callable[[Put], None]
    scenario: str = "counting"
    faults: str = "crash disk net clock slow evict"
    seeds: int = 40


MUTANTS: dict[str, Mutant] = {}


def mutant(**fields: Any) -> Callable[[Callable[[Put], None]], Callable[[Put], None]]:
    def register(plant: Callable[[Put], None]) -> Callable[[Put], None]:
        name = plant.__name__.replace("_", " ")
        MUTANTS[name] = Mutant(name, plant, **fields)
        return plant

    return register


@contextmanager
def planted(name: str) -> Generator[Mutant, None, None]:
    """The runtime with one bug."""
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, attribute: str, value: object) -> None:
        before.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, value)

    MUTANTS[name].plant(put)
    try:
        yield MUTANTS[name]
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)


# Gates.


@mutant()
def the_output_gate_is_open(put: Put) -> None:
    put(OutputGate, "shut", lambda self, sequence: None)


@mutant()
def turns_are_given_while_one_is_held(put: Put) -> None:
    real = InputGate.enter

    def enter(self, entry):
        self.held = False
        real(self, entry)

    put(InputGate, "enter", enter)
    put(InputGate, "leave", lambda self: setattr(self, "held", False))


@mutant()
def a_failed_commit_breaks_nobody(put: Put) -> None:
    real = Cell._committed
    put(Cell, "_committed", lambda self, batch, error: real(self, batch, None))


# Storage.


@mutant()
def commits_are_not_synced(put: Put) -> None:
    real = database_file._connect

    def connect(path):
        connection = real(path)
        connection.pragma("synchronous", "NORMAL")
        return connection

    put(database_file, "_connect", connect)


@mutant()
def acknowledged_before_it_is_written(put: Put) -> None:
    real = SharedStore.submit

    def submit(self, batch, done):
        real(self, batch, lambda error: None)
        done(None)

    put(SharedStore, "submit", submit)


@mutant(faults="disk", seeds=160)
def a_failed_group_is_reported_as_stored(put: Put) -> None:
    real = CommitQueue.settle
    put(CommitQueue, "settle", lambda self, failed: real(self, {}))


@mutant()
def the_log_is_thrown_away_at_start(put: Put) -> None:
    real = database_file._connect

    def connect(path):
        log = path.with_name(f"{path.name}-wal")
        if not (path.parent / f"{path.name}-shm").exists():
            log.unlink(missing_ok=True)
        return real(path)

    put(database_file, "_connect", connect)


# Instances.


@mutant()
def a_new_instance_beside_the_old_one(put: Put) -> None:
    real = Container.deliver

    def deliver(self, job):
        if self.cell is not None and not self.cell.idle and job.label == "read":
            self.cell = None
        real(self, job)

    put(Container, "deliver", deliver)


# Alarms.


@mutant(scenario="reminding")
def alarms_run_early(put: Put) -> None:
    real = AlarmScheduler.changed

    def changed(self, actor_id, due):
        real(self, actor_id, due)
        alarm = self._alarms.get(actor_id)
        if alarm is not None and due is not None:
            alarm.at = due - 0.5
            self._schedule(actor_id, alarm)

    put(AlarmScheduler, "changed", changed)


@mutant(scenario="reminding")
def alarms_are_not_loaded_at_start(put: Put) -> None:
    put(AlarmScheduler, "load", lambda self, pending: None)


@mutant(scenario="reminding")
def an_alarm_is_cleared_before_it_runs(put: Put) -> None:
    real = Storage.begin_alarm

    def begin_alarm(self):
        real(self)
        self.end_alarm(success=True)
        self._alarm_hidden = True
        self._gate.seal()

    put(Storage, "begin_alarm", begin_alarm)
