"""The console's routes about faults on purpose: which there are, which one runs, and what the last ones did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from actors.console.answers import Ask, Invalid
from actors.console.injection import NAME, OF_SOCKETS, OPERATORS, FaultKind, Run, number_of
from actors.measures import RECOVERY_BOUNDS_S, quantile
from actors.protocol import ijson
from actors.protocol.codes import BAD_MESSAGE, ErrorCode
from actors.stream import shard_name
from runtime import Request

_NO_FAULTS = ErrorCode(404, "no_faults")
_NO_FAULT = ErrorCode(404, "no_fault")
_NO_CONNECTION = ErrorCode(404, "no_connection")
_NOT_NOW = ErrorCode(409, "not_now")


@attrs.frozen(kw_only=True)
class Parameter:
    """A number of a fault, between two bounds."""

    name: str
    unit: str
    least: float
    most: float
    default: float


@attrs.frozen
class Kind:
    """What can be made to fail."""

    kind: FaultKind
    text: str
    parameters: tuple[Parameter, ...] = ()


def _seconds(default: float, most: float) -> Parameter:
    return Parameter(name="seconds", unit="s", least=1, most=most, default=default)


_PERCENT = Parameter(name="percent", unit="%", least=1, most=100, default=50)
KINDS = (
    Kind(
        "drop sockets",
        "Breaks a share of the clients' connections, or a session's, without a word, as a network does.",
        (_PERCENT,),
    ),
    Kind(
        "stall sockets",
        "Lets nothing through on a share of the clients' connections, or on a session's; what is sent meanwhile waits.",
        (_PERCENT, _seconds(10, 60)),
    ),
    Kind(
        "delay commits",
        "Every commit waits before it begins, and with it everything that has to be durable first.",
        (Parameter(name="delay_ms", unit="ms", least=1, most=10_000, default=500), _seconds(10, 120)),
    ),
    Kind(
        "crash actor",
        "Destroys an instance with its sockets and with what it has not stored; the next event makes another one.",
    ),
    Kind(
        "skew clock",
        "Sets the wall clock ahead, or back: schedules, the ends of tokens and the ages of signals are told by it.",
        (Parameter(name="skew_s", unit="s", least=-3_600, most=3_600, default=300), _seconds(30, 300)),
    ),
    Kind("kill process", "Ends the process at once, by SIGKILL. It comes back if something starts it again."),
)


async def faults(ask: Ask) -> dict[str, Any]:
    """What can be made to fail, what does, and what the last ones did."""
    _check_allowed(ask)
    runs = await ask.env.injections.get_by_name(NAME).runs()
    return {
        "kinds": [
            {"kind": one.kind, "text": one.text, "parameters": [attrs.asdict(part) for part in one.parameters]}
            | ({"actors": _actors(ask)} if one.kind == "crash actor" else {})
            | ({"streams": list(ask.env.settings.stream_names)} if one.kind in OF_SOCKETS else {})
            for one in KINDS
        ],
        "running": [_shown(run) for run in runs if not run.over],
        "past": [_shown(run) for run in runs if run.over],
    }


async def inject(ask: Ask) -> dict[str, Any]:
    """`{"kind": …, "parameters": {…}}`: let something fail; a parameter that is left out has its default."""
    found = _check_allowed(ask)
    try:
        body = ijson.parse(ask.request.body)
    except ijson.InvalidJson as error:
        raise Invalid(BAD_MESSAGE, str(error)) from None
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    kind = next((one for one in KINDS if one.kind == fields.get("kind")), None)
    if kind is None:
        raise Invalid(BAD_MESSAGE, f"kind is one of {', '.join(one.kind for one in KINDS)}", at="/kind")
    values = _values(ask, kind, fields.get("parameters", {}))
    if kind.kind in OF_SOCKETS:
        await _check_connected(ask, found, values)
    number = await ask.env.injections.get_by_name(NAME).inject(kind.kind, values, str(ask.who))
    if number is None:
        raise Invalid(_NOT_NOW, "a fault runs, or is being watched; end it first, or wait until it is over")
    return {"id": number}


async def end(ask: Ask) -> dict[str, Any]:
    """Everything is as it should be again, and nobody watches any more."""
    _check_allowed(ask)
    text = ask.request.params["id"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not number or not await ask.env.injections.get_by_name(NAME).end(number):
        raise Invalid(_NO_FAULT, f"no fault {text[:20]!r} runs")
    return {"done": True}


def target(request: Request) -> str:
    """What is written down of a fault."""
    return request.params.get("id") or request.body.decode("utf-8", "replace")


def _check_allowed(ask: Ask) -> Any:
    found = ask.env.operator.faults
    if found is None:
        raise Invalid(_NO_FAULTS, "nothing is made to fail here; the server has to be started with --faults")
    return found


def _actors(ask: Ask) -> list[str]:
    settings = ask.env.settings
    shards = [shard_name(n, stream) for stream in settings.stream_names for n in range(settings.shards)]
    names = {"shards": shards, "broadcasters": settings.stream_names}
    names["ingests"] = [source.name for source in settings.active_sources()]
    return [f"{namespace}/{name}" for namespace, all_ in names.items() for name in all_]


def _values(ask: Ask, kind: Kind, given: Any) -> dict[str, float | str]:
    if not isinstance(given, dict):
        raise Invalid(BAD_MESSAGE, "parameters is an object", at="/parameters")
    fields = cast("dict[str, Any]", given)
    of_sockets = kind.kind in OF_SOCKETS
    more = ["session", "stream"] if of_sockets else ["actor"] if kind.kind == "crash actor" else []
    known = [one.name for one in kind.parameters] + more
    for name in fields:
        if name not in known:
            raise Invalid(BAD_MESSAGE, f"{kind.kind!r} has {', '.join(known) or 'no parameters'}", at="/parameters")
    values: dict[str, float | str] = _one_session(ask, fields) if of_sockets else {}
    for one in kind.parameters:
        if values and one is _PERCENT:
            continue
        value = fields.get(one.name, one.default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not one.least <= value <= one.most:
            message = f"{one.name} is {value!r:.40}; must be {one.least:,} to {one.most:,} {one.unit}"
            raise Invalid(BAD_MESSAGE, message, at=f"/parameters/{one.name}")
        values[one.name] = float(value)
    if kind.kind == "crash actor":
        actors = _actors(ask)
        values["actor"] = fields.get("actor", actors[0])
        if values["actor"] not in actors:
            raise Invalid(BAD_MESSAGE, f"actor is one of {', '.join(actors)}", at="/parameters/actor")
    return values


def _one_session(ask: Ask, fields: dict[str, Any]) -> dict[str, float | str]:
    """The session that is named instead of a share, and its stream; {} when none is."""
    streams = ask.env.settings.stream_names
    session, stream = fields.get("session"), fields.get("stream", streams[0])
    if session is None:
        if "stream" in fields:
            raise Invalid(BAD_MESSAGE, "stream says whose session it is; give session, too", at="/parameters/stream")
        return {}
    if not isinstance(session, str) or not session:
        raise Invalid(BAD_MESSAGE, f"session is {session!r:.40}; must be a text", at="/parameters/session")
    if "percent" in fields:
        raise Invalid(BAD_MESSAGE, "give percent or session, not both", at="/parameters/session")
    if stream not in streams:
        raise Invalid(BAD_MESSAGE, f"stream is one of {', '.join(streams)}", at="/parameters/stream")
    return {"session": session, "stream": stream}


async def _check_connected(ask: Ask, found: Any, values: Mapping[str, float | str]) -> None:
    """Raises: Invalid: there is no connection that can be made to fail."""
    clients = found.connections(OPERATORS)
    if "session" in values:
        session, stream = str(values["session"]), str(values["stream"])
        number = await number_of(ask.env, stream, session)
        if number is None:
            message = f"no connection of {session[:64]!r} to {stream}; it may have ended"
            raise Invalid(_NO_CONNECTION, message, at="/parameters/session")
        if number not in [one.number for one in clients]:
            message = "only a client's WebSocket can be named, no operator's, and no event source; a share has those"
            raise Invalid(BAD_MESSAGE, message, at="/parameters/session")
    elif not clients:
        raise Invalid(_NOT_NOW, "no client is connected")


def _shown(run: Run) -> dict[str, Any]:
    recovery = quantile(run.effect.recoveries, 0.99, RECOVERY_BOUNDS_S)
    return {
        "id": run.number,
        "kind": run.kind,
        "parameters": run.values,
        "since": round(1_000 * run.since),
        "until": round(1_000 * run.until),
        "by": run.by,
        "effect": {
            "connections_lost": run.effect.connections_lost,
            "recoveries_ok": run.effect.recoveries_ok,
            "recoveries_gap": run.effect.recoveries_gap,
            "signals_lost": run.effect.signals_lost,
            "recovery_p99_ms": None if recovery is None else round(1_000 * recovery, 2),
        },
    }
