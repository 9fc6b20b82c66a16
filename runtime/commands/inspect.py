"""`heliograph inspect`: what a data directory holds, whether a server has it or not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from runtime import codec
from runtime.commands.options import UnusableError, data_option, find_id, shown, shown_id, shown_time
from runtime.ids import TOKEN_BYTES
from runtime.storage.bookmarks import bookmark_text
from runtime.storage.data_copy import OBJECTS
from runtime.storage.data_reader import Bookmark, DataReader, StoredActor, read_data
from runtime.storage.keys import key_text
from runtime.storage.object_file import object_path
from runtime.storage.object_history import history_path
from runtime.storage.object_reader import ObjectReader
from runtime.storage.store import StoreUnusable

_WIDTH = 400  # of a value in characters, without --json


@click.command("inspect")
@click.argument("namespace", required=False)
@click.argument("name", required=False)
@click.option("--id", "text", metavar="HEX", help="The actor's id instead of its name.")
@click.option("--key", "prefix", default="", metavar="PREFIX", help="Only keys that begin with this.")
@click.option("--bookmarks", type=click.IntRange(0), default=10, help="How many bookmarks.  [default: 10]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each actor, nothing shortened.")
@data_option
def inspect(
    namespace: str | None,
    name: str | None,
    text: str | None,
    prefix: str,
    bookmarks: int,
    as_json: bool,
    data: Path,
) -> None:
    """Show the actors of a data folder, of one NAMESPACE, or one actor's storage, alarm and bookmarks.

    A server may run on it: nothing is changed, and what is shown is of one moment. Sockets and what runs are in the
    server's memory, not in its data.
    """
    try:
        with read_data(data) as reader:
            if namespace is None or (name is None and text is None):
                _list(reader, reader.actors(namespace), as_json=as_json)
                return
            actor = find_id(namespace, name, text)
            stored = reader.actor(actor)
            if stored is None:
                raise UnusableError(f"{data} has nothing of {actor!r}; heliograph inspect lists what it has")
            path = object_path(data / OBJECTS, actor)
            if stored.has_file or history_path(path).is_dir():
                click.echo(f"what it stores is in a database of its own, {path}", err=True)
                _show_object(ObjectReader(path), reader.lineage, stored, prefix, bookmarks, as_json=as_json)
                return
            _show(reader, stored, prefix, bookmarks, as_json=as_json)
    except StoreUnusable as error:
        raise UnusableError(str(error)) from error


def _list(reader: DataReader, actors: Iterable[StoredActor], *, as_json: bool) -> None:
    if as_json:
        for actor in actors:
            click.echo(json.dumps(_facts(actor)))
        return
    rows = [("namespace", "name or id", "keys", "bytes", "alarm", "newest bookmark")]
    rows += [
        (
            shown(actor.id.namespace),
            shown_id(actor.id),
            "file" if actor.has_file else f"{actor.keys:,}",
            "" if actor.has_file else f"{actor.size_bytes:,}",
            "" if actor.alarm is None else shown_time(actor.alarm),
            _shown_bookmark(actor.bookmark, actor),
        )
        for actor in actors
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [
            cell.rjust(width) if column in {2, 3} else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row[:5], widths, strict=True))
        ]
        click.echo("  ".join([*cells, row[5]]).rstrip())
    click.echo(f"lineage {reader.lineage}", err=True)


def _show_object(
    file: ObjectReader, lineage: str, actor: StoredActor, prefix: str, limit: int, *, as_json: bool
) -> None:
    bookmarks = [Bookmark(text=bookmark_text(mark.point, lineage), time_s=mark.time_s) for mark in file.marks(limit)]
    pairs = list(file.pairs(prefix.encode("utf-8", "surrogatepass")))
    size = sum(len(key) + len(value) for key, value in pairs)
    actor = attrs.evolve(actor, keys=len(pairs), size_bytes=size, bookmark=bookmarks[0] if bookmarks else None)
    _tell(actor, bookmarks, pairs, file.tables(), as_json=as_json)


def _show(reader: DataReader, actor: StoredActor, prefix: str, limit: int, *, as_json: bool) -> None:
    pairs = reader.pairs(actor, prefix.encode("utf-8", "surrogatepass"))
    _tell(actor, reader.bookmarks(actor, limit), pairs, None, as_json=as_json)


def _tell(
    actor: StoredActor,
    bookmarks: Sequence[Bookmark],
    pairs: Iterable[tuple[bytes, bytes]],
    tables: Sequence[tuple[str, int]] | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        facts = _facts(actor)
        if tables is not None:
            facts["tables"] = dict(tables)
        facts["bookmarks"] = [{"bookmark": one.text, "time": shown_time(one.time_s)} for one in bookmarks]
        facts["storage"] = {key_text(key): _decoded(value) for key, value in pairs}
        click.echo(json.dumps(facts))
        return
    click.echo(f"{shown(actor.id.namespace)} {shown_id(actor.id).lstrip()}")
    click.echo(f"id       {actor.id}")
    click.echo(f"alarm    {shown_time(actor.alarm)}")
    click.echo(f"storage  {actor.keys:,} keys, {actor.size_bytes:,} bytes")
    for key, value in pairs:
        line = json.dumps(_decoded(value), ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        click.echo(f"  {shown(key_text(key))}  {line if len(line) <= _WIDTH else line[: _WIDTH - 1] + '…'}")
    for name, rows in tables or ():
        click.echo(f"table {shown(name)}  {rows:,} rows")
    click.echo("bookmarks before its changes, the newest first")
    for one in bookmarks:
        click.echo(f"  {one.text}  {shown_time(one.time_s)}")
    if not bookmarks:
        click.echo(f"  {_shown_bookmark(None, actor)}")


def _shown_bookmark(bookmark: Bookmark | None, actor: StoredActor) -> str:
    if not actor.records:
        return "its class keeps no history"
    return "older than the history" if bookmark is None else bookmark.text


def _facts(actor: StoredActor) -> dict[str, Any]:
    return {
        "namespace": actor.id.namespace,
        "id": str(actor.id),
        "name": actor.id.name,
        "facet_of": str(actor.id)[: -2 * TOKEN_BYTES] if actor.id.is_facet else None,
        "keys": actor.keys,
        "bytes": actor.size_bytes,
        "alarm": actor.alarm,
        "history": actor.records,
        "has_file": actor.has_file,
        "bookmark": None if actor.bookmark is None else actor.bookmark.text,
    }


def _decoded(value: bytes) -> Any:
    try:
        return codec.plain(codec.decode(value, Any))
    except codec.UndecodableError:
        return {"undecodable": value.hex()}
