"""Operations that reach other actors, ids, or the end of this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime import Request
from tests.conformance.run import Run, after_commits
from tests.conformance.values import UNDEFINED, Error


def _argument(run: Run, operands: Sequence[Any]) -> Any:
    return run.value(operands[0]) if operands else UNDEFINED


def _call(run: Run, actor: str, method: str, *argument: Any) -> Any:
    return run.stub(actor).run(method, _argument(run, argument))


def _stub(run: Run, name: str, actor: str, *_: Any) -> None:
    run.stubs[name] = run.stub(actor)


def _stub_call(run: Run, name: str, method: str, *argument: Any) -> Any:
    return run.stubs[name].run(method, _argument(run, argument))


async def _fetch(run: Run, actor: str, path: str) -> dict[str, Any]:
    response = await run.stub(actor).fetch(Request(method="POST", path=f"/{path}"))
    return {"status": response.status, "body": response.body.decode()}


async def _pipeline(run: Run, actor: str, start: Any) -> list[Any]:
    counter = run.stub(actor).counter(run.value(start))
    first, second = counter.inc(1), counter.inc(10)
    return [await first, await second]


async def _keep_counter(run: Run, actor: str, start: Any) -> None:
    run.variables["counter"] = await run.stub(actor).counter(run.value(start))


def _callback(run: Run, actor: str, argument: Any) -> Any:
    async def double(number: Any) -> Any:
        run.log("callback-ran", number)
        return number * 2

    return run.stub(actor).callback(double, run.value(argument))


async def _returned_function(run: Run, actor: str, first: Any, second: Any) -> Any:
    add = await run.stub(actor).adder(run.value(first))
    return await add(run.value(second))


async def _facet_call(run: Run, name: str, method: str, *argument: Any) -> Any:
    facet = run.ctx.facets.get(name, lambda: run.actor_class)
    return await facet.run(method, _argument(run, argument))


def _facet_stub(run: Run, name: str, facet: str) -> None:
    run.stubs[name] = run.ctx.facets.get(facet, lambda: run.actor_class)


def _abort(run: Run, *arguments: Any) -> Any:
    values = [run.value(item) for item in arguments]
    retry = values[1].get("retryAlarm", True) if len(values) > 1 else True

    async def later() -> None:
        await after_commits(run, rounds)
        run.ctx.abort(*values[:1], retry_alarm=retry)

    rounds = run.world.commit_rounds()
    return later() if rounds else run.ctx.abort(*values[:1], retry_alarm=retry)


# ── ids ──


def _ids(run: Run, what: str, *argument: Any) -> Any:
    return _ID_FACTS[what](run, run.world.namespace(run.namespaces, ""), _argument(run, argument))


def _id_of_name(_: Run, ns: Any, name: str) -> Any:
    found, again = ns.id_from_name(name), ns.id_from_name(name)
    return {"name": found.name, "text": str(found), "sameAgain": str(found) == str(again), "equals": found == again}


def _unique_id(_: Run, ns: Any, __: Any) -> Any:
    first, second = ns.new_unique_id(), ns.new_unique_id()
    return {
        "length": len(str(first)),
        "name": _or_undefined(first.name),
        "differ": str(first) != str(second),
        "equal": first == second,
    }


def _round_trip(_: Run, ns: Any, name: str) -> Any:
    back = ns.id_from_string(str(ns.id_from_name(name)))
    return {"equal": back == ns.id_from_name(name), "name": _or_undefined(back.name)}


def _stub_properties(_: Run, ns: Any, name: str) -> Any:
    stub = ns.get_by_name(name)
    return {"keys": ["name", "id"], "name": stub.name, "sameId": stub.id == ns.id_from_name(name)}


def _jurisdiction(_: Run, __: Any, ___: Any) -> Any:
    raise Error("Jurisdiction restrictions are not implemented in workerd.")  # nor here: there is no such parameter


def _or_undefined(value: Any) -> Any:
    return UNDEFINED if value is None else value


_ID_FACTS: dict[str, Callable[[Run, Any, Any], Any]] = {
    "name": _id_of_name,
    "nameHash": lambda _, ns, name: str(ns.id_from_name(name)),
    "unique": _unique_id,
    "roundTrip": _round_trip,
    "upperCase": lambda _, ns, name: ns.id_from_string(str(ns.id_from_name(name)).upper()) == ns.id_from_name(name),
    "parse": lambda _, ns, text: str(ns.id_from_string(text)),
    "foreign": lambda run, ns, name: str(run.namespaces.kv.id_from_string(str(ns.id_from_name(name)))),
    "getForeign": lambda run, ns, name: "object" if run.namespaces.kv.get(ns.id_from_name(name)) else None,
    "jurisdiction": _jurisdiction,
    "subNamespace": _jurisdiction,
    "stubProps": _stub_properties,
    "hint": lambda _, ns, __: "object" if ns.get(ns.id_from_name("hinted")) else None,  # a hint is ignored there
}


CALLS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "stub": _stub,
    "scall": _stub_call,
    "fetch": _fetch,
    "evict": lambda run, actor, options=None: run.ctx.outside(run.world.evict, run.stub(actor), options or {}),
    "evictAll": lambda run, options=None: run.ctx.outside(run.world.evict_all, options or {}),
    "abortAll": lambda run: run.ctx.outside(run.world.abort_all),
    "echo": lambda run, actor, value: run.stub(actor).echo(run.value(value)),
    "prop": lambda run, actor, name: getattr(run.stub(actor), name),
    "missing": lambda run, actor, name: getattr(run.stub(actor), name)(),
    "pipeline": _pipeline,
    "keepCounter": _keep_counter,
    "counterInc": lambda run, by: run.variables["counter"].inc(run.value(by)),
    "counterDispose": lambda run: run.variables["counter"].dispose(),
    "callback": _callback,
    "returnedFn": _returned_function,
    "fail": lambda run, actor, how: run.stub(actor).fail(run.value(how)),
    "ids": _ids,
    "id": lambda run: {"name": _or_undefined(run.ctx.id.name), "text": len(str(run.ctx.id))},
    "abort": _abort,
    "facetCall": _facet_call,
    "facetAbort": lambda run, name, text: run.ctx.facets.abort(name, Error(run.value(text))),
    "facetDelete": lambda run, name: run.ctx.facets.delete(name),
    "facetClone": lambda run, source, target: run.ctx.facets.clone(source, target),
    "facetStub": _facet_stub,
}
