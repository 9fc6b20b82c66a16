"""Three versions of one app on the same data: state is upgraded step by step, and newer state is refused."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from runtime import Actor, App, Namespace, durable
from runtime.sim import Unknown, World, scenario
from runtime.storage.durable import StateVersionError

NAMES = ("tea", "milk")


@attrs.frozen
class First:
    total: int = 0


@attrs.frozen
class Second:
    total: int = 0
    steps: str = ""


@attrs.frozen
class Third:
    value: int = 0
    steps: str = ""


def _to_second(fields: dict[str, Any]) -> dict[str, Any]:
    return {"total": fields["total"], "steps": "2"}


def _to_third(fields: dict[str, Any]) -> dict[str, Any]:
    return {"value": fields.pop("total"), "steps": f"{fields.pop('steps', '')}3", **fields}


class FirstCounter(Actor["Env"]):
    count = durable(First)

    async def add(self, by: int) -> tuple[int, str]:
        self.count = attrs.evolve(self.count, total=self.count.total + by)
        return self.count.total, ""


class SecondCounter(Actor["Env"]):
    count = durable(Second, version=2, upgrades={1: _to_second})

    async def add(self, by: int) -> tuple[int, str]:
        self.count = attrs.evolve(self.count, total=self.count.total + by)
        return self.count.total, self.count.steps


class ThirdCounter(Actor["Env"]):
    count = durable(Third, version=3, upgrades={1: _to_second, 2: _to_third})

    async def add(self, by: int) -> tuple[int, str]:
        self.count = attrs.evolve(self.count, value=self.count.value + by)
        return self.count.value, self.count.steps


@attrs.frozen
class FirstEnv:
    counters: Namespace[FirstCounter]


@attrs.frozen
class SecondEnv:
    counters: Namespace[SecondCounter]


@attrs.frozen
class ThirdEnv:
    counters: Namespace[ThirdCounter]


VERSIONS = tuple(App(env=env, routes={}) for env in (FirstEnv, SecondEnv, ThirdEnv))


@scenario
async def upgrading(w: World) -> None:
    """The server is stopped and started with older and newer code: nothing is lost, and none of it is misread."""
    node = await w.start_node(VERSIONS[0])
    acked, unknown = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for name in NAMES:
        await w.until_answered(lambda name=name: node.stub("counters", name).add(0))

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(20):
            await trio.sleep(rng.uniform(0, 0.8))
            unknown[name] += 1
            try:
                value, steps = await node.stub("counters", name).add(1)
            except Unknown:
                continue
            except StateVersionError:
                unknown[name] -= 1
                continue
            unknown[name] -= 1
            acked[name] += 1
            assert acked[name] <= value <= acked[name] + unknown[name], f"{name} is {value}, not {acked[name]}"
            assert steps in ("", "2", "23"), f"{name} was upgraded by the steps {steps}"

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(6):
            await trio.sleep(rng.uniform(0.3, 2.5))
            await w.restart(node, app=rng.choice(VERSIONS))

    async with trio.open_nursery() as everybody:
        everybody.start_soon(operator)
        for name in NAMES:
            everybody.start_soon(client, name)
    await w.quiesce()
    await w.restart(node, app=VERSIONS[-1])
    for name in NAMES:
        value, steps = await node.stub("counters", name).add(0)
        assert acked[name] <= value <= acked[name] + unknown[name], f"{name} is {value}, not {acked[name]}"
        assert steps == "23", f"{name} was upgraded by the steps {steps}"
