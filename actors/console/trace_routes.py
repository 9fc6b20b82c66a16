"""The console's routes about single signals: their way from the source to the sockets."""

from __future__ import annotations

from typing import Any

from actors.console.answers import BAD_QUERY, NO_STREAM, Ask, Invalid
from actors.filters import Filter
from actors.history import HistoryPage, Wish
from actors.protocol import ijson
from actors.protocol.cursor import Cursor
from actors.signal_tracer import WATCH_S

EVERYTHING = Filter.parse({}).canonical
OFFSET_DIGITS = 15


async def watch(ask: Ask) -> dict[str, Any]:
    """Somebody looks at the signals of a stream: those of the next seconds are traced."""
    await ask.env.tracers.get_by_name(_stream(ask)).watch()
    return {"seconds": WATCH_S}


async def trace(ask: Ask) -> dict[str, Any]:
    """What is known of a signal; `found` is false when nobody looked while it came, or too many came since."""
    name, text = _stream(ask), ask.request.params["offset"]
    if not text.isascii() or not text.isdigit() or len(text) > OFFSET_DIGITS or int(text) < 1:
        raise Invalid(BAD_QUERY, f"offset is {text[:40]!r}; must be a whole number from 1", at="offset")
    offset = int(text)
    view = await ask.env.tracers.get_by_name(name).find(offset)
    if view is None:
        return {"found": False, "offset": offset, **await _stored(ask, name, offset), "steps": []}
    steps = [
        {
            "name": step.name,
            "at": round(1_000 * step.at),
            "after_ms": round(1_000 * step.after_s, 3),
            "detail": step.detail,
        }
        for step in view.steps
    ]
    signal = view.signal
    known = {"type": signal.type, "entity": signal.entity, "ts": signal.ts}
    return {"found": True, "offset": offset, **known, "steps": steps}


def _stream(ask: Ask) -> str:
    name = ask.request.params["name"]
    if name not in ask.env.settings.stream_names:
        raise Invalid(NO_STREAM, f"no stream named {name[:64]!r} is configured")
    return name


async def _stored(ask: Ask, name: str, offset: int) -> dict[str, Any]:
    """What the log says of a signal that was not traced."""
    stream = ask.env.broadcasters.get_by_name(name)
    bounds = await stream.bounds()
    page = await stream.read(Wish(filter=EVERYTHING, since=Cursor(bounds.epoch, offset - 1), limit=1))
    if isinstance(page, HistoryPage) and page.signals and page.a == offset - 1:
        value: Any = ijson.parse(page.signals)
        return {key: value[key] for key in ("type", "entity", "ts")}
    return {"type": None, "entity": None, "ts": None}
