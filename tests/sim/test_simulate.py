"""Scenarios of a small app: everything holds whatever goes wrong, and every run can be had again."""

import weakref

import attrs
import pytest
import trio

from runtime.sim import Fault, Faults, SimulationFailed, Unknown, World, check, linearizable, scenario, simulate
from runtime.sim.history import History, Operation
from runtime.sim.runner import repeat, shrink
from runtime.sim.timeline import timeline
from runtime.sim.trace import Trace
from tests.sim.counters import app, counting, reminding
from tests.sim.errands import crowding, giving_up, insisting, quitting, sending
from tests.sim.notebooks import restoring, restoring_tables
from tests.sim.tables import tallying
from tests.sim.upgrades import upgrading


def test_counters_are_linearizable_whatever_goes_wrong():
    check(counting, seeds=40)


def test_alarms_are_rung_whatever_goes_wrong():
    check(reminding, seeds=40)


@pytest.mark.parametrize(
    ("what", "seeds"), [(sending, 20), (insisting, 20), (giving_up, 10), (crowding, 5), (quitting, 15)]
)
def test_errands_are_run_whatever_goes_wrong(what, seeds):
    check(what, seeds=seeds)


def test_tables_of_sql_classes_keep_what_is_acknowledged_whatever_goes_wrong():
    check(tallying, seeds=40)


@pytest.mark.parametrize(("what", "seeds"), [(restoring, 30), (restoring_tables, 20)])
def test_notebooks_are_brought_back_to_what_they_had_whatever_goes_wrong(what, seeds):
    check(what, seeds=seeds)


def test_a_bookmark_of_an_object_that_has_stored_nothing_yet_outlives_a_power_cut():
    simulate(restoring_tables, seed=77).raise_if_failed()


def test_state_survives_older_and_newer_code_whatever_goes_wrong():
    check(upgrading, seeds=20)


def test_operations_that_nobody_was_answered_and_that_change_nothing_cost_nothing():
    history = History(Trace(lambda: 0.0), "x")
    history.operations += [Operation("read", 2 * at + 1) for at in range(60)]
    history.operations.append(Operation("read", 200, answer=1, ended=201))
    assert linearizable(history, 0, lambda state, _: (state, state)) is not None


def test_a_run_with_errors_that_name_files_is_repeatable():
    repeat(tallying, 3, Faults.swarm())


def test_a_run_leaves_nothing_in_memory():
    worlds = []

    async def remembered(w: World) -> None:
        worlds.append(weakref.ref(w))
        await counting.run(w)

    simulate(remembered, seed=1)
    assert worlds[0]() is None


def test_a_process_that_is_cancelled_while_it_starts_ends():
    simulate(insisting, seed=290, order="shuffle").raise_if_failed()


def test_a_machine_without_power_stays_silent_when_a_partition_heals():
    # An answer that a dead process had written once came through, and its offset was given to another signal.
    plan = [Fault(0.5, "partition", lasts=2.0), Fault(1.0, "power cut", 1.0, 5.0)]
    assert simulate(sending, seed=3, plan=plan, order="shuffle").ok


def test_an_alarm_that_rang_is_not_early_when_the_clock_is_set_back_afterwards():
    simulate(reminding, seed=234, order="shuffle").raise_if_failed()


def test_the_same_seed_does_the_same_and_another_one_something_else():
    assert repeat(counting, 5, Faults.swarm()) != repeat(counting, 6, Faults.swarm())


def test_without_faults_none_happens():
    result = simulate(counting, faults=Faults.none())
    assert result.ok
    assert not {"crash", "power cut", "reset", "abort"} & set(result.fired)


def test_over_many_seeds_each_kind_of_fault_happens_and_each_claim_is_checked():
    fired, checked = set(), set()
    for seed in range(40):
        result = simulate(reminding, seed=seed)
        fired |= set(result.fired)
        checked |= {name for name, count in result.checked.items() if count}
    assert {"crash", "power cut", "sync fails", "disk full", "partition", "clock jump", "slow", "evict"} <= fired
    assert checked >= set(result.checked) - {"G11 RecoveryChangesNothing", "G11 DamageIsRefused", "G7 AlarmPauses"}


def test_damaged_pages_are_met_and_refused():
    for seed in range(60):
        result = simulate(counting, seed=seed, plan=[Fault(3.0, "bit flip", lasts=3.0)])
        result.raise_if_failed()
        assert result.fired["bit flip"] <= 1
        if result.checked["G11 DamageIsRefused"]:
            return
    pytest.fail("no damaged page was ever needed")


@scenario
async def forgetful(w: World):
    """Claims too much: that what was not answered has not happened."""
    node = await w.start_node(app)
    sure = 0
    for _ in w.times(20):
        await trio.sleep(0.5)
        try:
            await node.stub("counters", "tea").add(1)
        except Unknown:
            continue
        sure += 1
    await w.quiesce()
    found = await node.stub("counters", "tea").read()
    assert found == sure, f"{found} were added, and {sure} were answered"


def test_a_failure_says_what_was_drawn_what_broke_and_what_happened_last():
    failed = next(result for seed in range(100) if not (result := simulate(forgetful, seed=seed)).ok)
    with pytest.raises(SimulationFailed) as caught:
        failed.raise_if_failed()
    text = str(caught.value)
    assert f"forgetful, seed {failed.seed}: scenario" in text
    assert "were answered" in text
    assert "Drawn from the seed" in text
    page = timeline(failed)
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "a fault, or no answer" in page, "what the colours mean"


def test_a_timeline_shows_for_how_long_a_node_is_down():
    page = timeline(simulate(counting, plan=[Fault(1.0, "power cut", 1.0, 0.5)]))
    assert page.count("<title>power cut, from 1.0") == 1


def test_a_failure_shrinks_to_few_faults():
    failed = next(result for seed in range(100) if not (result := simulate(forgetful, seed=seed)).ok)
    small, _ = shrink(forgetful, failed)
    assert not small.ok
    assert small.failure.claim == failed.failure.claim
    assert 1 <= len(small.plan) <= 2 < len(failed.plan)


def test_a_plan_can_be_given_by_hand():
    result = simulate(counting, plan=[Fault(1.0, "power cut", 1.0, 0.5)])
    assert result.ok
    assert result.fired["power cut"] == 1


def test_a_run_in_which_nothing_can_ever_happen_again_says_who_waits():
    @scenario
    async def stuck(w: World):
        await trio.Event().wait()

    # A task of the simulator's own waits for nodes that die; it is no way out.
    result = simulate(stuck, faults=Faults.none())
    assert result.failure is not None
    assert "every task waits" in result.failure.text
    assert "stuck" in result.failure.text


def test_a_run_that_goes_round_in_circles_ends():
    @scenario(steps=5_000)
    async def busy(w: World):
        while True:
            await trio.lowlevel.checkpoint()

    assert "goes round in circles" in simulate(busy, faults=Faults.none()).failure.text


def test_a_run_that_takes_too_long_ends():
    @scenario(virtual_s=10)
    async def slow(w: World):
        await trio.sleep(11)

    assert "not finished in time" in simulate(slow, faults=Faults.none()).failure.text


def test_unknown_faults_are_named():
    with pytest.raises(ValueError, match="no faults 'fire'; there are crash, disk, net"):
        Faults.swarm("crash,fire")


@attrs.frozen
class Step:
    request: object
    answer: object
    begun: int
    ended: int | None


def _history(*steps):
    from runtime.sim.history import Operation

    history = History(Trace(lambda: 0.0), "x")
    history.operations += [Operation(s.request, s.begun, s.answer, s.ended) for s in steps]
    return history


def _register(state, request):
    return (state, state) if request == "read" else (request, None)


def test_linearizable_histories_are_told_from_others():
    write, late = Step(1, None, 1, 4), Step("read", 0, 2, 3)
    assert linearizable(_history(write, late), 0, _register) is None  # the read came first
    stale = Step("read", 0, 5, 6)
    culprit, before = linearizable(_history(write, late, stale), 0, _register)
    assert culprit.begun == 5
    assert before.ended == 4
    lost = Step(2, None, 7, None)
    assert linearizable(_history(write, lost, Step("read", 2, 8, 9)), 0, _register) is None  # it happened
    assert linearizable(_history(write, lost, Step("read", 1, 8, 9)), 0, _register) is None  # or not
