"""Rare branches are marked, reached by the scenarios that are there for them, and cost nothing elsewhere."""

import ast
import importlib.util
from pathlib import Path

import attrs
import pytest

from runtime import Actor, App, Namespace
from runtime.platform import pass_by, real_platform
from runtime.sim import Fault, Faults, World, scenario, simulate
from runtime.sim.runner import load_scenarios
from runtime.sim.trace import POINT

ROOT = Path(__file__).parent.parent.parent
FILES = (
    "actors.scenarios_all",
    "tests/sim/counters.py",
    "tests/sim/errands.py",
    "tests/sim/tables.py",
)


def _marked():
    """The names in `….point("…")` of the runtime and the service."""
    for folder in ("runtime", "actors"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(ast.Attribute(attr="point" | "_point"), [ast.Constant(name)]):
                        yield name


def _wanted():
    for file in FILES:
        for chosen in load_scenarios(file).values():
            for point in chosen.points:
                yield point, chosen


def test_every_point_has_a_name_of_its_own():
    names = list(_marked())
    assert len(names) == len(set(names)) >= 15


def test_every_point_has_a_scenario_that_is_there_to_reach_it():
    assert set(_marked()) == {point for point, _ in _wanted()}


@pytest.mark.parametrize("name", sorted({chosen.name for _, chosen in _wanted()}))
def test_a_scenario_reaches_its_points(name):
    chosen = next(chosen for _, chosen in _wanted() if chosen.name == name)
    missing = {f"{POINT}{point}" for point in chosen.points}
    for seed in range(1, 80):
        missing -= simulate(chosen, seed=seed).fired.keys()
        if not missing:
            return
    assert not missing


class Till(Actor["Env"]):
    async def pay(self, twice: bool) -> int:
        self.ctx.storage.put("paid", self.ctx.storage.get("paid", int, 0) + 1)
        if twice:
            self.ctx.point("paid twice")
        return self.ctx.storage.get("paid", int)


@attrs.frozen
class Env:
    tills: Namespace[Till]


@scenario(points=("paid twice",))
async def paying(w: World) -> None:
    node = await w.start_node(App(env=Env, routes={}))
    for twice in (False, True):
        await w.until_answered(lambda twice=twice: node.stub("tills", "main").pay(twice))


def test_a_developer_marks_branches_of_his_own():
    assert simulate(paying, faults=Faults.none()).fired[f"{POINT}paid twice"] == 1


def test_a_process_can_end_right_at_a_point():
    result = simulate(paying, plan=[Fault(0.0, "crash at a point", 1.0, 0.1)])
    assert result.ok
    assert result.fired["crash"] == 1
    assert result.fired[f"{POINT}paid twice"] == 2  # the call was made again


def test_outside_a_simulation_a_point_is_a_function_that_does_nothing():
    assert real_platform().point is pass_by
    assert pass_by("anything") is None


def test_the_table_of_faults_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("fault_table", ROOT / "docs" / "fault_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.written(page), "run: python docs/fault_table.py"
