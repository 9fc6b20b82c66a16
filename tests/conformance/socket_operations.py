"""Operations on hibernating WebSockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime import WebSocket
from tests.conformance.run import Run
from tests.conformance.values import is_undefined


def attachment_id(ws: WebSocket) -> Any:
    """The `id` of a socket's attachment, None when it has none."""
    value = ws.attachment()
    return value.get("id") if isinstance(value, dict) else None


def _pick(run: Run, who: Any) -> list[WebSocket]:
    if who == "self":
        return [run.socket]
    if who == "all":
        return run.ctx.get_web_sockets()
    if isinstance(who, dict):
        return run.ctx.get_web_sockets(who["tag"])
    return [ws for ws in run.ctx.get_web_sockets() if attachment_id(ws) == who]


def _listed(run: Run, tag: Sequence[Any]) -> list[WebSocket]:
    return run.ctx.get_web_sockets(*(run.value(item) for item in tag))


def _send(run: Run, who: Any, expression: Any) -> None:
    for ws in _pick(run, who):
        ws.send(run.value(expression))


def _close(run: Run, who: Any, *arguments: Any) -> None:
    values = [run.value(item) for item in arguments]
    for ws in _pick(run, who):
        ws.close(*(None if is_undefined(value) else value for value in values))


def _attach(run: Run, who: Any, expression: Any) -> None:
    for ws in _pick(run, who):
        ws.serialize_attachment(run.value(expression))


def _auto(run: Run, *pair: Any) -> None:
    run.ctx.set_web_socket_auto_response(*(run.value(item) for item in pair))


def _get_auto(run: Run) -> Any:
    pair = run.ctx.get_web_socket_auto_response()
    return None if pair is None else {"request": pair[0], "response": pair[1]}


def _event_timeout(run: Run, *milliseconds: Any) -> None:
    value = run.value(milliseconds[0]) if milliseconds else None
    run.ctx.set_hibernatable_web_socket_event_timeout(None if value is None else value / 1000)


def _get_event_timeout(run: Run) -> Any:
    seconds = run.ctx.get_hibernatable_web_socket_event_timeout()
    return None if seconds is None else round(seconds * 1000)


async def _unheard(*_: Any) -> None: ...


def _accept(run: Run, tags: Any = (), how: str | None = None) -> None:
    ws = run.world.loose_socket(run.ctx)
    if how == "regular-first":
        run.ctx.accept_ordinary_web_socket(ws, _unheard, _unheard)
    run.ctx.accept_web_socket(ws, run.value(tags))


SOCKETS: dict[str, Callable[..., Any]] = {
    "wsList": lambda run, *tag: [attachment_id(ws) for ws in _listed(run, tag)],
    "wsCount": lambda run, *tag: len(_listed(run, tag)),
    "wsSend": _send,
    "wsClose": _close,
    "wsState": lambda run, who: [ws.ready_state for ws in _pick(run, who)],
    "wsTags": lambda run, who: [list(run.ctx.get_tags(ws)) for ws in _pick(run, who)],
    "wsAttach": _attach,
    "wsAttachment": lambda run, who: [ws.attachment() for ws in _pick(run, who)],
    "wsAuto": _auto,
    "wsGetAuto": _get_auto,
    "wsAutoStamp": lambda run, who: [None if ws.auto_response_timestamp is None else "date" for ws in _pick(run, who)],
    "wsEventTimeout": _event_timeout,
    "wsGetEventTimeout": _get_event_timeout,
    "wsAccept": _accept,
}
