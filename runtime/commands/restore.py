"""`heliograph restore`: bring one actor back to a bookmark or a time, or put a whole copy in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import click

from runtime.commands.options import (
    UnusableError,
    data_option,
    find_id,
    read_time,
    shown,
    shown_id,
    shown_time,
)
from runtime.errors import InvalidBookmark, StorageFailed
from runtime.ids import ActorId
from runtime.platform import real_platform
from runtime.storage.bookmarks import Retention, bookmark_point, bookmark_text
from runtime.storage.data_copy import OBJECTS, put_in_place
from runtime.storage.data_reader import read_data
from runtime.storage.database_file import DATABASE, DatabaseFile, open_database
from runtime.storage.group_writer import GroupWriter
from runtime.storage.history import Restored
from runtime.storage.keys import PRIVATE, key_text
from runtime.storage.object_file import object_path, settle
from runtime.storage.object_history import ObjectHistory, history_path
from runtime.storage.object_keys import REGISTERED
from runtime.storage.object_points import point_at
from runtime.storage.object_restore import bring_back
from runtime.storage.store import StoreUnusable, WriteBatch

_KEYS = 20  # that are named
_KEEP = Retention(age_s=float("inf"), total_bytes=1 << 62)  # a restore forgets nothing


@click.command("restore")
@click.argument("namespace", required=False)
@click.argument("name", required=False)
@click.option("--id", "text", metavar="HEX", help="The actor's id instead of its name.")
@click.option("--to", "target", metavar="BOOKMARK|TIME", help="A bookmark, or a time such as 2026-01-31T12:00:00Z.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option(
    "--from",
    "copy",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Put this folder, made by heliograph backup, in place of all data.",
)
@data_option
def restore(
    namespace: str | None,
    name: str | None,
    text: str | None,
    target: str | None,
    dry_run: bool,
    copy: Path | None,
    data: Path,
) -> None:
    """Bring the actor NAME of NAMESPACE back to how it was, or put a whole copy in place (--from).

    No server may run on the data. A restore of an actor is recorded like any other change, and can be undone.
    """
    try:
        if copy is not None:
            if any(value is not None for value in (namespace, name, text, target)) or dry_run:
                raise UnusableError("--from replaces all data; it goes with --data only")
            _put(data, copy)
        elif namespace is None or target is None:
            raise UnusableError("say which actor (NAMESPACE NAME) and where to (--to), or give a copy (--from)")
        else:
            _bring_back(data, find_id(namespace, name, text), target, dry_run=dry_run)
    except (StoreUnusable, InvalidBookmark) as error:
        raise UnusableError(str(error)) from error


def _put(data: Path, copy: Path) -> None:
    replaced = put_in_place(data, copy, real_platform().now)
    click.echo(f"{copy} is in place in {data}")
    if replaced is not None:
        click.echo(f"what was there is in {replaced}; remove it when it is not needed any more")


def _bring_back(data: Path, actor: ActorId, target: str, *, dry_run: bool) -> None:
    if not (data / DATABASE).exists():
        raise UnusableError(f"no data in {data}: there is no {DATABASE}; say where it is (--data)")
    platform = real_platform()
    file = open_database(data, platform.token_bytes)
    try:
        with read_data(data) as reader:
            stored = reader.actor(actor)
        writer = GroupWriter(file.writer, file.room, _KEEP, platform.now())
        path = object_path(data / OBJECTS, actor)
        if (stored is not None and stored.has_file) or history_path(path).is_dir():
            _bring_back_object(writer, file, path, actor, target, platform.now, dry_run=dry_run)
            return
        writer.write([WriteBatch(actor=actor, sequence=0, writes={}, mark=True)], platform.now())
        point = _point(writer, file, target)
        restored = writer.restore(actor, point, platform.now(), keep=not dry_run)
        if restored is None:
            raise UnusableError(f"{data} has nothing of {actor!r}; heliograph inspect lists what it has")
        _tell(actor, file.lineage, restored, point, dry_run=dry_run)
    finally:
        file.close()


def _bring_back_object(
    writer: GroupWriter,
    file: DatabaseFile,
    path: Path,
    actor: ActorId,
    target: str,
    now: Callable[[], float],
    *,
    dry_run: bool,
) -> None:
    """The same with a database of its own; the index of all objects is told of the alarm that it has then."""
    time_s = read_time(target)
    try:
        before = settle(path, now)
        history = ObjectHistory(path)
        if time_s is None:
            point = bookmark_point(target, file.lineage, history.ancestors())
        else:
            point = point_at(history.marks(), before.newest, time_s)
        restored = bring_back(path, point, now(), keep=not dry_run)
        after = before if dry_run else settle(path, now)
    except (OSError, apsw.Error, StorageFailed) as error:
        raise UnusableError(f"{path} cannot be brought back: {error}") from error
    if not dry_run:
        index = WriteBatch(actor=actor, sequence=0, writes={REGISTERED: b""}, alarm=after.alarm)
        failed = writer.write([index], now())
        if failed:
            raise UnusableError(f"the index was not told of the alarm: {failed[0]}")
    _tell_where(actor, file.lineage, point, dry_run=dry_run)
    click.echo(
        f"  {restored.pages:,} pages have earlier contents: {restored.size:,} pages before, {restored.size_then:,} then"
    )
    if not dry_run:
        _tell_alarm(before.alarm, after.alarm)
        _tell_undo(actor, bookmark_text(restored.undo, file.lineage))


def _point(writer: GroupWriter, file: DatabaseFile, target: str) -> int:
    time_s = read_time(target)
    if time_s is None:
        return bookmark_point(target, file.lineage, file.ancestors)
    return writer.history.at(time_s)


def _tell(actor: ActorId, lineage: str, restored: Restored, point: int, *, dry_run: bool) -> None:
    _tell_where(actor, lineage, point, dry_run=dry_run)
    if restored.swapped:
        click.echo("  everything that a delete_all took is there again, and what came after it is gone")
    click.echo(f"  {restored.put:,} keys have an earlier value, {restored.removed:,} are gone")
    for key in restored.keys[:_KEYS]:
        click.echo(f"    {shown(key_text(key))}" if key < PRIVATE else "    where a facet is")
    if restored.put + restored.removed > _KEYS:
        click.echo("    …")
    if restored.facets:
        click.echo(f"  {restored.facets:,} of its facets are as they were then")
    _tell_alarm(*restored.alarm)
    if not dry_run:
        _tell_undo(actor, bookmark_text(restored.undo, lineage))


def _tell_where(actor: ActorId, lineage: str, point: int, *, dry_run: bool) -> None:
    verb = "would bring" if dry_run else "brought"
    click.echo(f"{verb} {shown(actor.namespace)} {shown_id(actor).lstrip()} back to {bookmark_text(point, lineage)}")


def _tell_alarm(before: float | None, after: float | None) -> None:
    click.echo(f"  alarm: {shown_time(before)}" + ("" if before == after else f", now {shown_time(after)}"))


def _tell_undo(actor: ActorId, undo: str) -> None:
    which = f"--id {actor}" if actor.name is None or actor.is_facet else shown_id(actor)
    click.echo(f"undo: heliograph restore {shown(actor.namespace)} {which} --to {undo}")
