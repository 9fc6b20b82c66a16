"""What the commands on a data directory share: where it is, which actor is meant, how times are written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from runtime.errors import InvalidId
from runtime.ids import ID_BYTES, ActorId, id_from_name, id_from_string

F = TypeVar("F", bound=Callable[..., Any])

_CONFIG = Path("heliograph.toml")


class UnusableError(click.ClickException):
    """What was asked for cannot be done, as with a wrong option."""

    exit_code = 2


def data_option(function: F) -> F:
    """`--data`, which is `server.data` of the configuration when it is left out."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        callback=_given_or_configured,
        help=f"Folder of everything durable.  [default: server.data in {_CONFIG}, if there is one, else ./data]",
    )(function)


def _given_or_configured(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    return value or _configured()


def _configured() -> Path:
    if not _CONFIG.is_file():
        return Path("data")
    try:
        found = tomllib.loads(_CONFIG.read_text(encoding="utf-8")).get("server", {}).get("data", "data")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError) as error:
        raise UnusableError(f"{_CONFIG}: {error}; mend it, or say where the data is (--data)") from error
    if not isinstance(found, str):
        raise UnusableError(f"{_CONFIG}: server.data: saw {found!r}; must be a path in quotes")
    return Path(found)


def find_id(namespace: str, name: str | None, text: str | None) -> ActorId:
    """The actor that a name or an id means; a facet has an id that is longer.

    Raises:
        UnusableError: both or neither is given, or the id is none of the namespace.
    """
    if (name is None) == (text is None):
        raise UnusableError("give the actor's NAME, or its id (--id), and not both")
    if name is not None:
        return id_from_name(namespace, name)
    try:
        found = id_from_string(namespace, str(text)[: 2 * ID_BYTES])
        return ActorId(namespace, found.raw + bytes.fromhex(str(text)[2 * ID_BYTES :]))
    except ValueError as error:
        raise UnusableError(f"--id {text}: not hexadecimal behind the first {2 * ID_BYTES} digits") from error
    except InvalidId as error:
        raise UnusableError(f"--id {text}: {error}") from error


def shown(text: str) -> str:
    """A stored text on one line, its control characters escaped."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace").decode()


def shown_id(actor: ActorId) -> str:
    """The name of an actor in quotes, its id when it has none; facets are set in behind their actor."""
    text = str(actor) if actor.name is None else f'"{shown(actor.name)}"'
    return f"{'  ' * (actor.depth - 1)}facet {text}" if actor.is_facet else text


def shown_time(time_s: float | None) -> str:
    """A time as `--to` takes it, to the millisecond above."""
    if time_s is None:
        return "none"
    try:
        return (
            datetime.fromtimestamp(-(-time_s * 1000 // 1) / 1000, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
    except (ValueError, OverflowError):
        return f"{time_s!r} s"


def read_time(text: str) -> float | None:
    """Seconds since the Unix epoch, None when the text is no time.

    Raises:
        UnusableError: it does not say in which zone.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        raise UnusableError(f"{text!r} does not say in which zone; end it with Z for UTC, or an offset such as +02:00")
    return found.timestamp()
