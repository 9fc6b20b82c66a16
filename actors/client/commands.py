"""`heliograph tail` and `heliograph publish`: the signal service from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import click
import trio
from rich.console import Console
from rich.text import Text

from actors.client.address import DEFAULT_URL
from actors.client.buffer import Gap
from actors.client.client import Ack, SignalClient
from actors.client.errors import ClientError, InvalidUrl
from actors.client.transport import Connect
from actors.client.websocket import websocket_connect
from actors.filters import InvalidFilter
from actors.protocol import events as happened
from actors.protocol import ijson
from actors.protocol.codes import close_name
from actors.protocol.cursor import Ago, Cursor, InvalidCursor, Last, Since
from actors.protocol.encoding import ENCODINGS, JSON, EncodingName
from actors.signals import Draft, InvalidSignal, Signal

T = TypeVar("T")

PUBLISH_S = 5.0  # how long `publish` tries


def _json(text: str) -> object:
    try:
        return ijson.parse(text)
    except ijson.InvalidJson as error:
        raise click.BadParameter(f"{text!r}: {error}; a string needs its own quotes: '\"text\"'") from None


_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _since(text: str) -> Since:
    match text.partition(":"):
        case ("now" | "earliest" | "snapshot" as word, "", ""):
            return word
        case ("last", ":", count):
            if (number := _whole(count)) is None:
                raise click.BadParameter(f"{text!r}: N of last:N is a whole number from 1")
            return Last(number)
        case ("ago", ":", time):
            count = time.rstrip("".join(_UNITS_MS))
            if (number := _whole(count)) is None or (unit := time[len(count) :]) not in _UNITS_MS:
                raise click.BadParameter(f"{text!r}: ago:T is a whole number and ms, s, m, h or d, such as ago:5m")
            return Ago(number * _UNITS_MS[unit])
        case _:
            try:
                return Cursor.parse(text)
            except InvalidCursor as error:
                raise click.BadParameter(f"{error}; or {_SINCE}") from None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text[:16]) > 0 and len(text) < 16 else None


_SINCE = "now, earliest, snapshot, last:N or ago:5m"
_stream = click.option("--stream", metavar="NAME", help="A named stream of the server.")
_token = click.option("--token", envvar="HELIOGRAPH_TOKEN", help="Bearer token [env: HELIOGRAPH_TOKEN].")


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--types", multiple=True, metavar="P", help="Type pattern, such as 'host.cpu.>'; may be repeated.")
@click.option("--entities", multiple=True, metavar="P", help="Entity pattern, such as 'btc-*'; may be repeated.")
@click.option("--where", type=_json, metavar="JSON", help='Condition, such as \'{"f":"/data/p","op":"gt","v":1}\'.')
@click.option(
    "--from",
    "since",
    type=_since,
    metavar="now|earliest|snapshot|last:N|ago:5m|CURSOR",
    default="now",
    show_default=True,
    help="Where to begin.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON signal per line.")
@click.option(
    "--encoding", type=click.Choice(tuple(ENCODINGS)), default=JSON.name, show_default=True, help="What frames are."
)
@_stream
@_token
def tail(
    url: str,
    types: tuple[str, ...],
    entities: tuple[str, ...],
    where: Any,
    since: Since,
    as_json: bool,
    encoding: EncodingName,
    stream: str | None,
    token: str | None,
) -> None:
    """Show signals as they happen; reconnects by itself and goes on where it was. Ctrl-C ends it."""
    wanted: dict[str, Any] = {"types": types or None, "entities": entities or None, "where": where, "since": since}
    show = _show_json if as_json else _Lines()
    _run(partial(tail_signals, url, token, wanted, show, stream=stream, encoding=encoding))


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--type", "type_", required=True, metavar="T", help="What happened, such as alert.high.")
@click.option("--entity", required=True, metavar="E", help="About whom, such as btc-usd.")
@click.option("--data", required=True, type=_json, metavar="JSON", help="Payload: any JSON.")
@click.option("--id", "id_", metavar="ID", help="Idempotency id: published again under it, it is stored once.")
@_stream
@_token
def publish(
    url: str, type_: str, entity: str, data: Any, id_: str | None, stream: str | None, token: str | None
) -> None:
    """Publish one signal and print its offset and epoch once it is stored."""
    ack = _run(partial(publish_signal, url, token, type_, entity, data, id_, stream=stream))
    click.echo(f"offset {ack.offset} epoch {ack.epoch}" + (" (stored before)" if ack.dup else ""))


async def tail_signals(
    url: str,
    token: str | None,
    wanted: dict[str, Any],
    show: Callable[[Signal], None],
    connect: Connect | None = None,
    stream: str | None = None,
    encoding: EncodingName = "json",
) -> None:
    """Show what a subscription brings, until the connection is over for good; what happens to it goes to stderr."""
    connect = connect or websocket_connect()
    client = SignalClient(url, token=token, name="heliograph tail", connect=connect, stream=stream, encoding=encoding)
    sub = client.subscribe(**wanted, on_gap="skip")  # a mistake shows before anything is opened
    async with client:
        with client.events() as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_report, events)
                async with sub:
                    async for item in sub:
                        if isinstance(item, Gap):
                            _say(_gap_line(item))
                        else:
                            show(item)


async def publish_signal(
    url: str,
    token: str | None,
    type_: str,
    entity: str,
    data: Any,
    id_: str | None,
    connect: Connect | None = None,
    stream: str | None = None,
) -> Ack:
    """Publish one signal. Raises: click.ClickException when nothing answers for some seconds."""
    Draft.of(type_, entity, data, id=id_)  # a mistake shows before anything is opened
    async with SignalClient(
        url, token=token, name="heliograph publish", connect=connect or websocket_connect(), stream=stream
    ) as client:
        with trio.move_on_after(PUBLISH_S):
            return await client.publish(type_, entity, data, id=id_)
        why = client.state.reason or "no answer"
        raise click.ClickException(f"not published within {PUBLISH_S:g} s: {why}")


async def _report(events: Any) -> None:
    async for event in events:
        match event:
            case happened.ClientState(state="reconnecting", delay_ms=delay_ms, code=code, reason=reason):
                why = reason or (
                    "connection lost" if code in (None, 1006) else f"closed with {code} {close_name(code)}"
                )
                _say(f"{why}; trying again in {(delay_ms or 0) / 1000:.1f} s")
            case happened.ClientState(state="connected", resumed=resumed):
                _say("connected again" if resumed else "connected")
            case happened.Notice(slug=slug, msg=message):
                _say(f"{slug}: {message}")
            case _:
                pass


def _gap_line(gap: Gap) -> str:
    which = "unknown offsets" if gap.upto is None else f"offsets {(gap.after or 0) + 1} to {gap.upto}"
    return f"gap: {which} will not come ({gap.reason})"


def _say(line: str) -> None:
    click.echo(f"heliograph: {line}", err=True)


def _show_json(signal: Signal) -> None:
    sys.stdout.write(signal.json.decode() + "\n")
    sys.stdout.flush()


class _Lines:
    """A readable line per signal."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False)

    def __call__(self, signal: Signal) -> None:
        at = datetime.fromtimestamp(signal.ts / 1000).astimezone()
        self._console.print(
            Text.assemble(
                (f"{at:%H:%M:%S}.{signal.ts % 1000:03d} ", "dim"),
                (f"#{signal.o} ", "dim"),
                (signal.type, "bold cyan"),
                " ",
                (signal.entity, "green"),
                " ",
                json.dumps(signal.data, ensure_ascii=False),
            )
        )


def _run(work: Callable[[], Awaitable[T]]) -> T:
    """Run to the end; what went wrong becomes one line and an exit status. Ctrl-C is no mistake."""
    try:
        return trio.run(work)
    except BaseException as error:  # noqa: BLE001 - told apart below, inside the groups of nurseries too
        cause = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, KeyboardInterrupt):
            sys.exit(130)
        if isinstance(cause, ClientError | InvalidUrl | InvalidFilter | InvalidSignal):
            raise click.ClickException(str(cause)) from None
        raise cause from None
