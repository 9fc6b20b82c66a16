"""Planted bugs: patches of the runtime that a simulation must find. The shipped code has none of them.

Each is a function that patches through `put(owner, attribute, value)`. Those marked `blind` were written from the
published table of guarantees before there was a claim for their row.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial

import attrs

from actors import reach
from actors.broadcaster import SignalBroadcaster
from actors.log import RecentIds
from actors.protocol import server_sent_events
from actors.protocol.cursor import Cursor
from actors.protocol.server import Reply, ServerMachine
from actors.shard_groups import ShardGroups
from actors.stream import STREAM
from runtime.actor.cell import Cell
from runtime.actor.input_gate import InputGate, Job, Waiter, Work
from runtime.actor.output_gate import OutputGate
from runtime.actor.result import DONE, Error
from runtime.errors import ActorReset, Overloaded
from runtime.namespace.alarms import AlarmScheduler, _drop
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container
from runtime.namespace.stub import _StubCall
from runtime.sim.mutants import Mutant, Put, mutant
from runtime.storage import database_file, object_file
from runtime.storage.commit_queue import CommitQueue
from runtime.storage.shared import SharedStore
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP
from tests.sim import blind

COUNTERS, ERRANDS, SERVICE = "tests/sim/counters.py", "tests/sim/errands.py", "actors.scenarios"
TABLES = "tests/sim/tables.py"

counting = partial(mutant, COUNTERS, "counting")
reminding = partial(mutant, COUNTERS, "reminding")
sending = partial(mutant, ERRANDS, "sending")
insisting = partial(mutant, ERRANDS, "insisting")
crowding = partial(mutant, ERRANDS, "crowding")
following = partial(mutant, SERVICE, "following")
tallying = partial(mutant, TABLES, "tallying")
posting = partial(mutant, "actors.scenarios_http", "posting")
renewing = partial(mutant, "actors.scenarios_tokens", "renewing")
reading_events = partial(mutant, "actors.scenarios_events", "reading_events")
separating = partial(mutant, "actors.scenarios_streams", "separating")

# Gates.


@counting(row="G5")
def the_output_gate_is_open(put: Put) -> None:
    put(OutputGate, "shut", lambda self, sequence: None)


@counting(row="G2")
def turns_are_given_while_one_is_held(put: Put) -> None:
    real = InputGate.enter

    def enter(self, entry):
        self.held = False
        real(self, entry)

    put(InputGate, "enter", enter)
    put(InputGate, "leave", lambda self: setattr(self, "held", False))


@counting(row="G11")
def a_failed_commit_breaks_nobody(put: Put) -> None:
    real = Cell._committed
    put(Cell, "_committed", lambda self, batch, error: real(self, batch, None))


# Storage.


@counting(row="G11")
def commits_are_not_synced(put: Put) -> None:
    real = database_file._connect

    def connect(path):
        connection = real(path)
        connection.pragma("synchronous", "NORMAL")
        return connection

    put(database_file, "_connect", connect)


@counting(row="G11")
def acknowledged_before_it_is_written(put: Put) -> None:
    real = SharedStore.submit

    def submit(self, batch, done):
        real(self, batch, lambda error: None)
        done(None)

    put(SharedStore, "submit", submit)


@counting(row="G11", faults=("disk",), median=17)
def a_failed_group_is_reported_as_stored(put: Put) -> None:
    real = CommitQueue.settle
    put(CommitQueue, "settle", lambda self, failed: real(self, {}))


@counting(row="G11")
def the_log_is_thrown_away_at_start(put: Put) -> None:
    real = database_file._connect

    def connect(path):
        log = path.with_name(f"{path.name}-wal")
        if not (path.parent / f"{path.name}-shm").exists():
            log.unlink(missing_ok=True)
        return real(path)

    put(database_file, "_connect", connect)


@tallying(row="G11", faults=("disk",), median=3)
def the_folders_of_objects_are_not_synced(put: Put) -> None:
    put(object_file, "_sync", lambda path: None)


@counting(row="G11", faults=("disk",), median=10)
def damaged_pages_are_served(put: Put) -> None:
    real = database_file._connect

    def connect(path):
        connection = real(path)
        connection.pragma("checksum_verification", "OFF")
        return connection

    put(database_file, "_connect", connect)
    put(database_file, "_check", lambda connection, path: None)


@posting(row="G3", faults=("net",))
def a_repeated_publication_is_stored_again(put: Put) -> None:
    put(RecentIds, "find", lambda self, *_: None)


# Instances.


@counting(row="G1")
def a_new_instance_beside_the_old_one(put: Put) -> None:
    real = Container.deliver

    def deliver(self, job):
        if self.cell is not None and not self.cell.idle and job.label == "read":
            self.cell = None
        real(self, job)

    put(Container, "deliver", deliver)


# Alarms.


@reminding(row="G7")
def alarms_run_early(put: Put) -> None:
    real = AlarmScheduler.changed

    def changed(self, actor_id, due):
        real(self, actor_id, due)
        alarm = self._alarms.get(actor_id)
        if alarm is not None and due is not None:
            alarm.at = due - 0.5
            self._schedule(actor_id, alarm)

    put(AlarmScheduler, "changed", changed)


@reminding(row="G7", median=2)
def alarms_are_not_loaded_at_start(put: Put) -> None:
    put(AlarmScheduler, "load", lambda self, pending: None)


@reminding(row="G7")
def an_alarm_is_cleared_before_it_runs(put: Put) -> None:
    real = Storage.begin_alarm

    def begin_alarm(self):
        real(self)
        self.end_alarm(success=True)
        self._alarm_hidden = True
        self._gate.seal()

    put(Storage, "begin_alarm", begin_alarm)


# From the table of guarantees alone.


@sending(row="G3", blind=True, median=7)
def a_call_that_was_cut_short_is_repeated(put: Put) -> None:
    real = CallJob.done

    def done(self, result):
        if isinstance(result, Error) and isinstance(result.error, ActorReset) and isinstance(self, _StubCall):
            self._stub._calls.container(self._stub._id).deliver(self)
        else:
            real(self, result)

    put(CallJob, "done", done)


@sending(row="G4", blind=True)
def the_newest_call_goes_first(put: Put) -> None:
    real = InputGate.enter

    def enter(self, entry):
        if isinstance(entry, Work) and self.held and self._queue and not self.closed:
            self._queue.appendleft(entry)
        else:
            real(self, entry)

    put(InputGate, "enter", enter)


@sending(row="G6", blind=True)
def an_exception_takes_back_what_was_written_before_it(put: Put) -> None:
    real = Cell._finish

    def finish(self, frame, job, result):
        if isinstance(result, Error) and self.storage._overlay._open is not None:
            self.storage._overlay._open.writes.clear()
        real(self, frame, job, result)

    put(Cell, "_finish", finish)


@sending(row="G6", blind=True, median=3)
def what_one_turn_wrote_is_stored_in_two_steps(put: Put) -> None:
    real = SharedStore.submit

    def submit(self, batch, done):
        keys = list(batch.writes.items())
        if len(keys) > 1:
            half = len(keys) // 2
            real(self, attrs.evolve(batch, writes=dict(keys[:half]), alarm=KEEP), lambda _: None)
            batch = attrs.evolve(batch, writes=dict(keys[half:]), delete_all=False)
        real(self, batch, done)

    put(SharedStore, "submit", submit)
    put(CommitQueue, "take_group", _one_at_a_time)


@insisting(row="G7", blind=True)
def an_alarm_that_fails_is_given_up_at_once(put: Put) -> None:
    put(
        AlarmScheduler,
        "_retry",
        lambda self, actor_id, failed, error: self._deliver(actor_id, Job("drop alarm", _drop)),
    )


@crowding(row="G9", blind=True)
def a_call_that_was_refused_runs_all_the_same(put: Put) -> None:
    real = Container.reserve_call

    def send(self):
        place = self._stub._place()
        try:
            real(place)
        except Overloaded as error:
            self.done(Error(error))
            place.deliver(self)
            return
        self._place = place
        self.deliver()

    put(_StubCall, "send", send)


# What the first ones missed.


@crowding(row="G9")
def the_mailbox_has_no_bound(put: Put) -> None:
    put(Container, "reserve_call", lambda self: setattr(self, "calls", self.calls + 1))


@sending(row="G5")
def a_request_to_the_outside_leaves_early(put: Put) -> None:
    async def outside(self, fn, *args):
        frame = self.frame()
        self.seal()
        frame.outside = True
        frame.gate.outermost_open().leave()
        try:
            return await fn(*args)
        finally:
            if self.broken is None:
                waiter = Waiter(frame)
                waiter.wake(DONE)
                await waiter.park(self.abort_if_broken)
            frame.outside = False

    put(Cell, "outside", outside)


@sending(row="G1", median=4)
def a_busy_instance_counts_as_idle(put: Put) -> None:
    put(Cell, "idle", property(lambda self: True))


@insisting(row="G7")
def a_failed_alarm_is_tried_again_at_once(put: Put) -> None:
    real = AlarmScheduler._retry

    def retry(self, actor_id, failed, error):
        real(self, actor_id, failed, error)
        alarm = self._alarms.get(actor_id)
        if alarm is not None:
            alarm.at = self._platform.now()
            self._schedule(actor_id, alarm)

    put(AlarmScheduler, "_retry", retry)


@reminding(row="G7")
def every_start_moves_the_alarms(put: Put) -> None:
    real = SharedStore._open_writer

    def open_writer(self, file):
        file.writer.execute("UPDATE alarms SET due = due + 0.5")
        return real(self, file)

    put(SharedStore, "_open_writer", open_writer)


# The service.


@following(row="G3", median=2)
def what_was_published_before_the_start_is_not_known_again(put: Put) -> None:
    def rebuild(self, log, state, now_ms):
        self.loaded = True
        return iter(())

    put(RecentIds, "rebuild", rebuild)


@following(row="G8")
def a_subscription_resumes_one_too_far(put: Put) -> None:
    real = SignalBroadcaster._grant

    def grant(self, shard, wanted, place):
        if isinstance(wanted.since, Cursor) and wanted.since.offset < self.stream.head:
            wanted = attrs.evolve(wanted, since=attrs.evolve(wanted.since, offset=wanted.since.offset + 1))
        return real(self, shard, wanted, place)

    put(SignalBroadcaster, "_grant", grant)


@following(row="G11")
def a_publication_is_confirmed_before_it_is_stored(put: Put) -> None:
    real = Cell.wrote

    def wrote(self, *, confirmed):
        real(self, confirmed=confirmed and self.actor_class is not SignalBroadcaster)

    put(Cell, "wrote", wrote)


@following(row="G8", median=4)
def what_a_shard_missed_is_not_read_again(put: Put) -> None:
    put(ShardGroups, "heal_soon", lambda self, group: setattr(group, "cursor", 1 << 40))


@renewing(row="G8")
def a_renewed_token_ends_when_the_one_before_it_would_have(put: Put) -> None:
    real = ServerMachine.renewed

    def renewed(self, auth, found, now):
        state = self.state
        answer = real(self, auth, found, now)
        if isinstance(answer, Reply):
            self.state = state
        return answer

    put(ServerMachine, "renewed", renewed)


@renewing(row="G9")
def a_connection_outlives_its_token(put: Put) -> None:
    real = ServerMachine.authenticated
    put(
        ServerMachine,
        "authenticated",
        lambda self, principal, now: real(self, attrs.evolve(principal, expires=None), now),
    )


@reading_events(row="G8")
def who_reads_events_comes_back_one_too_far(put: Put) -> None:
    real = server_sent_events._event

    def event(epoch, text):
        before, mark, offset = real(epoch, text).partition(f"id: {epoch}:".encode())
        return before + mark + re.sub(rb"^\d+", lambda found: b"%d" % (int(found[0]) + 1), offset)

    put(server_sent_events, "_event", event)


@separating(row="G8")
def all_streams_have_one_broadcaster(put: Put) -> None:
    put(reach, "stream_of", lambda shard: STREAM)


@separating(row="G3")
def an_id_is_known_in_every_stream(put: Put) -> None:
    real = RecentIds.__init__
    shared = OrderedDict()

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self._offsets = shared

    put(RecentIds, "__init__", init)


def _one_at_a_time(self, bytes_max):
    assert not self._group
    self._group.append(self._waiting.popleft())
    return [batch for batch, _, _ in self._group]


vars().update({name: bug for name, bug in vars(blind).items() if isinstance(bug, Mutant)})
