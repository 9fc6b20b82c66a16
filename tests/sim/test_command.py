"""`heliograph sim`: what it prints and how it ends."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.cli import main

COUNTERS = str(Path(__file__).with_name("counters.py"))

WRONG = '''
import trio
from runtime.sim import World, scenario
from tests.sim.counters import app

@scenario
async def sure(w: World) -> None:
    """Says that nothing is ever unanswered."""
    node = await w.start_node(app)
    for _ in w.times(20):
        await trio.sleep(0.4)
        await node.stub("counters", "tea").add(1)
'''


@pytest.fixture
def sim():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, ["sim", *arguments])


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    return str(path)


def test_a_run_counts_what_happened(sim):
    done = sim("run", COUNTERS, "--seeds", "1..10")
    assert done.exit_code == 0, done.output
    assert "20 passed, 0 failed" in done.output
    assert re.search(r"claims: G1 OneInstance \d+", done.output)
    assert "events/s" in done.output


def test_what_never_happened_is_said(sim):
    done = sim("run", COUNTERS, "--seeds", "1", "--scenario", "counting", "--faults", "net")
    assert done.exit_code == 0, done.output
    assert re.search(r"never happened: .*G7 AlarmNotLost.*; more seeds", done.output)
    wanted = sim("run", COUNTERS, "--seeds", "1", "--scenario", "counting", "--faults", "net", "--coverage")
    assert wanted.exit_code == 1
    assert "1 passed, 0 failed" in wanted.output


def test_a_failure_names_its_seed_and_how_to_see_it_again(sim, wrong):
    out = Path(wrong).with_name("out")
    done = sim("run", wrong, "--seeds", "1..8", "--faults", "crash", "--fail-fast", "--out", str(out))
    assert done.exit_code == 1
    seed = re.search(r"sure, seed (\d+): scenario\n  Unknown: no answer", done.output).group(1)
    assert f"heliograph sim replay {seed} {wrong} --scenario sure --faults crash" in done.output
    (page,) = out.iterdir()
    assert f"look at {page}" in done.output
    assert "Unknown: no answer" in page.read_text()
    again = sim("replay", seed, wrong, "--faults", "crash")
    assert again.exit_code == 1
    twice = sim("replay", seed, wrong, "--faults", "crash")
    assert again.output == twice.output
    small = sim("shrink", seed, wrong, "--faults", "crash")
    assert small.exit_code == 1
    assert re.search(r"faults became 1(, \d+ operations in each loop)?, after \d+ runs", small.output)


def test_replay_writes_the_timeline(sim, tmp_path):
    page = tmp_path / "run.html"
    done = sim("replay", "3", COUNTERS, "--scenario", "counting", "--html", str(page))
    assert done.exit_code == 0, done.output
    assert "<svg" in page.read_text()


def test_runs_do_not_depend_on_hashes(sim):
    done = sim("determinism", COUNTERS, "--seeds", "1..3")
    assert done.exit_code == 0, done.output
    assert "6 the same, 0 different" in done.output


def test_several_processes_find_the_same(sim):
    alone = sim("run", COUNTERS, "--seeds", "1..6")
    together = sim("run", COUNTERS, "--seeds", "1..6", "--jobs", "2")
    assert together.exit_code == 0, together.output
    assert [line for line in alone.output.splitlines() if line.startswith("claims")] == [
        line for line in together.output.splitlines() if line.startswith("claims")
    ]


def test_scenarios_in_turn_are_one_for_each_seed(sim):
    done = sim("run", COUNTERS, "--seeds", "1..6", "--in-turn")
    assert done.exit_code == 0, done.output
    assert "6 passed, 0 failed" in done.output
    assert "G7 AlarmNeverEarly" in done.output


def test_planted_bugs_are_listed_with_the_seeds_it_took_to_find_them(sim):
    mutants = str(Path(__file__).with_name("mutants.py"))
    done = sim("mutants", mutants, "--only", "output gate")
    assert done.exit_code == 0, done.output
    assert re.search(r"G5 +the output gate is open +counting +1 +1\nall found", done.output)
    many = sim("mutants", mutants, "--only", "output gate", "--seeds", "3")
    assert "3/3" in many.output


def test_a_planted_bug_that_is_not_found_is_a_failure(sim, tmp_path):
    path = tmp_path / "mutants.py"
    path.write_text(
        f"from runtime.sim.mutants import mutant\n@mutant({COUNTERS!r}, 'counting')\ndef nothing_is_wrong(put): pass\n"
    )
    done = sim("mutants", str(path))
    assert done.exit_code == 1
    assert "1 not found" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no_such.py"], "there is no file no_such.py"),
        (["run", COUNTERS, "--scenario", "x"], "no scenario 'x'; there are counting, reminding"),
        (["run", COUNTERS, "--seeds", "9..1"], "is empty"),
        (["run", COUNTERS, "--seeds", "a"], "is no range of seeds"),
        (["run", COUNTERS, "--faults", "fire"], "no faults 'fire'"),
        (["mutants", "no_such.py"], "planted bugs belong to the tests"),
        (["mutants", COUNTERS], "has no planted bug"),
    ],
)
def test_mistakes_are_explained(sim, arguments, message):
    done = sim(*arguments)
    assert done.exit_code == 2
    assert message in done.output
