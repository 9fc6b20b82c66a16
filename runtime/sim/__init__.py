"""A simulator of actor failure: the real runtime on real SQLite in a world that goes wrong, from a seed."""

from runtime.sim.claim import Claim, Violation
from runtime.sim.claims import CLAIMS
from runtime.sim.faults import GROUPS, KINDS, Fault, Faults
from runtime.sim.history import History, linearizable
from runtime.sim.node import SimulatedNode, Unknown
from runtime.sim.runner import check
from runtime.sim.simulate import Result, Scenario, SimulationFailed, scenario, simulate
from runtime.sim.trace import Event
from runtime.sim.world import World

__all__ = [
    "CLAIMS",
    "GROUPS",
    "KINDS",
    "Claim",
    "Event",
    "Fault",
    "Faults",
    "History",
    "Result",
    "Scenario",
    "SimulatedNode",
    "SimulationFailed",
    "Unknown",
    "Violation",
    "World",
    "check",
    "linearizable",
    "scenario",
    "simulate",
]
