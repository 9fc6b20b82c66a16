"""The actors of a scenario, and the driver, which is an actor too."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from runtime import Actor, ActorEvent, AlarmInfo, App, Context, Namespace, Request, Response, RpcTarget, WebSocket
from tests.conformance.interpreter import OPERATIONS
from tests.conformance.run import Run, perform, perform_now
from tests.conformance.socket_operations import attachment_id
from tests.conformance.values import UNDEFINED, Error, encode, is_undefined, make_error
from tests.conformance.world import World


class Counter(RpcTarget):
    """Counts, and notes when nobody holds it any more."""

    def __init__(self, value: Any, who: str, world: World) -> None:
        self._value = value
        self._who = who
        self._world = world

    def inc(self, by: Any) -> Any:
        """Count on."""
        self._value += by
        return self._value

    def dispose(self) -> None:
        """Note it."""
        self._world.log(self._who, "counter-disposed")


class ScriptedNoAlarm(Actor["Env"]):
    """Does what its program in the scenario says."""

    storage = "sql"
    auto_close_reply = False  # as recorded; the documented behaviour is the default
    backlog_bytes = 64 * 1024 * 1024  # there is no bound there

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.who = "unnamed" if ctx.id.name is None else ctx.id.name
        self._program = env.world.program(self.who)
        self._memory: dict[str, Any] = {}
        self._latches: dict[str, ActorEvent] = {}
        if self._program.get("logConstruct") is not False:
            env.world.log(self.who, "construct")
        perform_now(self._program.get("ctor"), self._run())
        if "ctorBlock" in self._program:
            ctx.block_concurrency_while(lambda: perform(self._program["ctorBlock"], self._run()))
        if "ctorThrow" in self._program:
            raise Error(self._program["ctorThrow"])

    def _run(self, socket: WebSocket | None = None, **variables: Any) -> Run:
        return Run(
            who=self.who,
            ctx=self.ctx,
            world=self.env.world,
            namespaces=self.env,
            operations=OPERATIONS,
            memory=self._memory,
            latches=self._latches,
            actor_class=type(self),
            variables=variables,
            socket=socket,
        )

    async def run(self, method: str, arg: Any = UNDEFINED) -> Any:
        """Run a method of the program."""
        program = self._program.get("methods", {}).get(method)
        if program is None:
            raise Error(f"no method {method}")
        return await perform(program, self._run(arg=arg))

    async def fetch(self, request: Request) -> Response:
        if request.web_socket is None:
            result = await self.run(request.path[1:])
            text = (
                result
                if isinstance(result, str)
                else json.dumps(
                    encode(None if is_undefined(result) else result), separators=(",", ":"), ensure_ascii=False
                )
            )
            return Response(200, text.encode())
        arg = json.loads(request.query_values().get("arg", "{}"))
        ws = request.web_socket
        if arg.get("regular"):
            self._accept_ordinary(ws)
            await perform(self._program.get("upgrade"), self._run(ws, arg=arg))
            return Response(101)
        self.ctx.accept_web_socket(ws, arg.get("tags", ()))
        if "id" in arg:
            ws.serialize_attachment({"id": arg["id"]})
        await perform(self._program.get("upgrade"), self._run(ws, arg=arg))
        return Response(101)

    def _accept_ordinary(self, ws: WebSocket) -> None:
        async def on_message(message: str | bytes) -> None:
            await perform(self._program.get("message"), self._run(ws, msg=message))

        async def on_close(code: int, reason: str, was_clean: bool) -> None:
            event = {"code": code, "reason": reason, "wasClean": was_clean}
            self.env.world.log(self.who, "regular-close", event)

        self.ctx.accept_ordinary_web_socket(ws, on_message, on_close)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        await perform(self._program.get("message"), self._run(ws, msg=message))

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        event = {"code": code, "reason": reason, "wasClean": was_clean}
        event |= {"id": attachment_id(ws), "state": ws.ready_state}
        self.env.world.log(self.who, "close-event", event)
        await perform(self._program.get("close"), self._run(ws, code=code, reason=reason))

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        self.env.world.log(self.who, "error-event", encode(error))
        await perform(self._program.get("error"), self._run(ws))

    # What the scenarios about calls need.

    async def echo(self, value: Any) -> Any:
        """The same value."""
        return value

    async def counter(self, value: Any) -> Counter:
        """A target, by reference."""
        return Counter(value, self.who, self.env.world)

    async def adder(self, number: Any) -> Callable[[Any], Awaitable[Any]]:
        """A function, by reference."""

        async def add(other: Any) -> Any:
            return number + other

        return add

    async def callback(self, function: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        """Call the caller's function."""
        return await function(argument)

    async def fail(self, how: dict[str, Any]) -> None:
        """Raise an error of this description."""
        raise make_error(how.get("name"), how["message"], how.get("props", {}))

    @property
    def answer(self) -> int:
        """A getter."""
        return 42


class Scripted(ScriptedNoAlarm):
    """With an alarm handler."""

    async def alarm(self, info: AlarmInfo) -> None:
        await perform(
            self._program.get("alarm"),
            self._run(
                retryCount=info.retry_count,
                isRetry=info.is_retry,
                late=self.ctx.now() >= info.scheduled_time,
                now=round(self.ctx.now() * 1000),
            ),
        )


class ScriptedKv(Scripted):
    """Of a class without SQL."""

    storage = "shared"


class Driver(Actor["Env"]):
    """The caller of a scenario; keeps nothing between two drives."""

    async def drive(self, program: list[Any]) -> None:
        """Run operations to their end."""
        run = Run(
            who="driver",
            ctx=self.ctx,
            world=self.env.world,
            namespaces=self.env,
            operations=OPERATIONS,
            memory={},
            latches={},
        )
        try:
            await perform(program, run)
        except Exception as error:  # noqa: BLE001 -- the scenario shows it
            run.log("uncaught", error)


@attrs.frozen
class Env:
    """The namespaces have the recorded unique keys, so that ids are the same."""

    scripted: Namespace[Scripted] = attrs.field(metadata={"key": "oracle-sql"})
    kv: Namespace[ScriptedKv] = attrs.field(metadata={"key": "oracle-kv"})
    no_alarm: Namespace[ScriptedNoAlarm] = attrs.field(metadata={"key": "oracle-noalarm"})
    driver: Namespace[Driver]
    world: World


async def _open_socket(request: Request, env: Env) -> Response:
    actor = request.query_values()["actor"]
    response: Response = await env.world.namespace(env, actor).get_by_name(actor).fetch(request)
    return response


APP = App(env=Env, settings=World, routes={"/ws": _open_socket})
