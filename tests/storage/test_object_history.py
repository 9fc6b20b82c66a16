"""The history of SQL objects: every bookmark leads back, whatever came in between, and wherever it was cut short."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

from runtime.errors import InvalidBookmark, StorageFailed
from runtime.limits import StorageLimits
from runtime.storage import object_backup, object_restore
from runtime.storage.bookmarks import Retention
from runtime.storage.object_backup import copy_object
from runtime.storage.object_file import ObjectFile, open_object
from runtime.storage.object_history import ObjectHistory, pages_then
from runtime.storage.object_points import point_at
from runtime.storage.object_records import segments
from runtime.storage.object_restore import bring_back
from runtime.storage.object_sweep import sweep_histories

LIMITS = StorageLimits().of_sql_classes()
WATCHED = ("object_file.py", "object_history.py", "object_log.py", "object_records.py", "object_restore.py")


@attrs.define(eq=False)
class Life:
    """One object over many openings, and what it held at every bookmark that was given out."""

    path: Path
    now: float = 1_700_000_000.0
    known: dict[int, str] = attrs.field(factory=dict)
    times: list[tuple[float, str]] = attrs.field(factory=list)
    file: ObjectFile | None = None

    def open(self) -> ObjectFile:
        if self.file is None:
            self.file = open_object(self.path, LIMITS, lambda: self.now, keeps=True)
            if self.file.left_behind is not None:
                self.file.record_left_behind()
        return self.file

    def sql(self, *statements: str) -> None:
        connection = self.open().connection
        connection.execute(f"BEGIN IMMEDIATE; {'; '.join(statements)}; COMMIT")
        self.times.append((self.now, self.dump()))

    def dump(self) -> str:
        return dump(self.open().connection)

    def bookmark(self) -> int:
        point = self.open().points.ask()
        self.known[point] = self.dump()
        return point

    def checkpoint(self, *during: str) -> None:
        file = self.open()
        look = file.look()
        upto, marks = file.hold(look)
        if during:
            self.sql(*during)
        file.checkpoint(upto, marks)
        file.points.forget(upto)
        look.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def kill(self) -> None:
        if self.file is not None:
            self.file.close(keep_log=True)
            self.file = None

    def back_to(self, point: int) -> int:
        self.open()
        self.close()
        return bring_back(self.path, point, self.now).undo


def dump(connection: apsw.Connection) -> str:
    """Everything an object holds."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
    held = {table: connection.execute(f'SELECT * FROM "{table}" ORDER BY 1').fetchall() for table in tables}
    assert connection.pragma("quick_check") == "ok"
    return hashlib.sha256(repr(held).encode()).hexdigest() + f" {[len(rows) for rows in held.values()]}"


def copied(folder: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*-shm"))
    return target


def check(life: Life, folder: Path, scratch: Path, *, some: random.Random | None = None) -> None:
    """Go back to every bookmark, each in a copy, and from there to where it was."""
    points = sorted(life.known)
    for point in points if some is None else some.sample(points, min(3, len(points))):
        path = copied(folder, scratch) / life.path.name
        copy = Life(path, now=life.now + 10)
        before = copy.dump()
        undo = copy.back_to(point)
        assert copy.dump() == life.known[point], f"{point:x}"
        copy.back_to(undo)
        assert copy.dump() == before
        copy.close()


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path / "object" / "x.sqlite")
    yield made
    made.kill()


@pytest.mark.parametrize("seed", range(12))
def test_every_bookmark_leads_back_whatever_came_in_between(life: Life, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(120):
        life.now += chance.choice((0.0, 0.001, 0.3, 2.0))
        match chance.randrange(24):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8:
                table = f"t{chance.randrange(3)}"
                rows = chance.choice((1, 3, 40))
                life.sql(
                    f"CREATE TABLE IF NOT EXISTS {table} (x INTEGER PRIMARY KEY, y)",
                    "; ".join(
                        f"INSERT OR REPLACE INTO {table} VALUES ({chance.randrange(300)}, "
                        f"x'{chance.randbytes(chance.choice((9, 900))).hex()}')"
                        for _ in range(rows)
                    ),
                )
            case 9 | 10:
                life.sql(f"CREATE TABLE IF NOT EXISTS t1 (x, y); DELETE FROM t1 WHERE x % {chance.randrange(2, 9)} = 0")
            case 11:
                life.sql("DROP TABLE IF EXISTS t0", "DROP TABLE IF EXISTS t1", "DROP TABLE IF EXISTS t2")
            case 12 | 13 | 14 | 15:
                life.bookmark()
            case 16:
                life.checkpoint()
            case 17:
                life.checkpoint(f"CREATE TABLE IF NOT EXISTS t{chance.randrange(3)} (x INTEGER PRIMARY KEY, y)")
            case 18 | 19:
                life.close()
            case 20 | 21:
                life.kill()
            case 22 if life.known:
                life.back_to(chance.choice(sorted(life.known)))
            case _:
                with contextlib.suppress(apsw.Error):
                    life.open().connection.execute("BEGIN IMMEDIATE; CREATE TABLE lost (x); ROLLBACK")
    life.kill()
    assert sorted(life.known) == list(life.known)
    check(life, life.path.parent, tmp_path / "copy")


def test_a_time_leads_to_the_last_second_before_it(life: Life) -> None:
    chance = random.Random(1)
    life.sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
    began = life.now
    for number in range(200):
        life.now += chance.choice((0.001, 0.05, 0.4, 3.0))
        life.sql(f"INSERT INTO t (y) VALUES ({number})")
        if number % 60 == 30:
            chance.choice((life.checkpoint, life.close))()
    life.close()
    history, points = ObjectHistory(life.path), life.open().points
    for _ in range(60):
        time_s = began + chance.random() * (life.now - began)
        point = point_at([*history.marks(), *points.marks], points.newest, time_s)
        undo = life.back_to(point)
        found = life.dump()
        times = [written_s for written_s, held in life.times if held == found]
        assert times, "a state that never was"
        assert times[0] <= time_s
        following = [written_s for written_s, _ in life.times if written_s > times[-1]]
        assert not following or following[0] > time_s - 1
        life.back_to(undo)


def states(folder: Path, target: Path, run: Any) -> list[Path]:
    """What a kill leaves at each step of `run`: the folder after every line of the watched files that changed it."""
    found: list[Path] = []
    seen: set[bytes] = set()

    def look() -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        digest = hashlib.sha256()
        for path in files:
            digest.update(str(path).encode() + path.read_bytes())
        if digest.digest() not in seen:
            seen.add(digest.digest())
            found.append(copied(folder, target / f"{len(found):04}"))

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        look()
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    look()
    return found


def write_a_while(life: Life, chance: random.Random) -> None:
    for _ in range(12):
        life.now += 0.4
        life.sql(
            "CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY, y)",
            *(f"INSERT OR REPLACE INTO t VALUES ({chance.randrange(40)}, randomblob(3000))" for _ in range(3)),
        )
        if chance.random() < 0.5:
            life.bookmark()


@pytest.mark.parametrize("step", ["checkpoint", "close", "empty", "restore", "open"])
def test_killed_at_any_step_every_bookmark_still_leads_back(life: Life, tmp_path: Path, step: str) -> None:
    chance = random.Random(step)
    write_a_while(life, chance)
    life.checkpoint()
    write_a_while(life, chance)
    if step in {"restore", "open"}:
        life.bookmark()
        life.close()
        write_a_while(life, chance)
    point = chance.choice(sorted(life.known))
    if step == "empty":
        life.sql("DROP TABLE t")
    if step == "open":
        life.kill()
    run = {
        "checkpoint": life.checkpoint,
        "close": life.close,
        "empty": life.close,
        "restore": lambda: life.back_to(point),
        "open": life.open,
    }[step]
    held = life.dump() if step != "open" else ""
    left = states(life.path.parent, tmp_path / "states", run)
    life.kill()
    assert len(left) > 2
    for folder in left if len(left) < 12 else chance.sample(left, 12):
        copy = Life(copied(folder, tmp_path / "look") / "x.sqlite", now=life.now)
        if step != "open":
            assert copy.dump() in {held, life.known[point]}
        copy.close()
        check(life, folder, tmp_path / "copy", some=chance)


@pytest.mark.parametrize("moment", ["_copy_pages", "_copy_history", "_copy_log", "_check"])
@pytest.mark.parametrize("seed", range(4))
def test_every_bookmark_leads_back_in_a_copy_made_while_the_object_is_written(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, seed: int
) -> None:
    chance = random.Random(seed)
    write_a_while(life, chance)
    if seed % 2:
        life.checkpoint()
        write_a_while(life, chance)
    if seed == 3:
        life.checkpoint()  # all of the log is in the database: it may begin anew
    life.bookmark()
    before, known = life.dump(), dict(life.known)
    step = getattr(object_backup, moment)

    def meanwhile(*args: Any) -> None:
        for _ in range(2):
            write_a_while(life, chance)
            life.checkpoint()
        write_a_while(life, chance)
        step(*args)

    monkeypatch.setattr(object_backup, moment, meanwhile)
    copy = Life(tmp_path / "copy" / "x.sqlite", now=life.now, known=known)
    copy_object(life.path, copy.path, lambda: life.now, lineage="a" * 32)
    monkeypatch.undo()
    held = copy.dump()
    copy.close()
    assert held in {before, *(state for _, state in life.times)}
    check(copy, copy.path.parent, tmp_path / "scratch")
    ((lineage, upto),) = ObjectHistory(copy.path).ancestors().items()
    assert (lineage, upto >= max(known)) == ("a" * 32, True)


def test_an_object_that_is_brought_back_while_it_is_copied_is_copied_again(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_a_while(life, random.Random(1))
    life.close()
    point, step, times = min(life.known), object_backup._copy_history, iter(range(1))

    def meanwhile(*args: Any) -> None:
        for _ in times:
            bring_back(life.path, point, life.now)
        step(*args)

    monkeypatch.setattr(object_backup, "_copy_history", meanwhile)
    copy = Life(tmp_path / "copy" / "x.sqlite", now=life.now, known=life.known)
    copy_object(life.path, copy.path, lambda: life.now)
    assert copy.dump() == life.known[point]
    copy.close()
    check(copy, copy.path.parent, tmp_path / "scratch")


def test_a_history_of_whose_end_a_power_cut_took_a_part_is_written_again(life: Life, tmp_path: Path) -> None:
    # Recorded and not synced; what the log has is not in the database yet.
    chance = random.Random(3)
    write_a_while(life, chance)
    life.checkpoint()
    write_a_while(life, chance)
    before = {path.name: path.stat().st_size for path in segments(ObjectHistory(life.path).folder)}
    file = life.open()
    file.record(file.points.newest, tuple(file.points.marks))
    life.kill()
    (newest,) = segments(ObjectHistory(life.path).folder)
    size, synced = newest.stat().st_size, before[newest.name]
    for cut in sorted(chance.sample(range(synced, size), 6)):
        for lost in (b"", bytes(size - cut)):
            folder = copied(life.path.parent, tmp_path / "cut")
            segment = folder / newest.relative_to(life.path.parent)
            segment.write_bytes(segment.read_bytes()[:cut] + lost)
            check(life, folder, tmp_path / "copy", some=chance)
    for sector in chance.sample(range(synced // 512 + 1, size // 512), 6):
        folder = copied(life.path.parent, tmp_path / "cut")
        segment = folder / newest.relative_to(life.path.parent)
        content = bytearray(segment.read_bytes())
        content[sector * 512 : (sector + 1) * 512] = bytes(512)
        segment.write_bytes(content)
        check(life, folder, tmp_path / "copy", some=chance)


def test_a_hole_in_the_history_ends_what_can_be_restored(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.object_records.SEGMENT_BYTES", 10_000)
    chance = random.Random(4)
    for _ in range(5):
        write_a_while(life, chance)
        life.checkpoint()
    files = segments(ObjectHistory(life.path).folder)
    assert len(files) > 4
    files[2].unlink()
    life.close()
    old, new = min(life.known), max(life.known)
    with pytest.raises(InvalidBookmark, match="too old"):
        life.back_to(old)
    life.back_to(new)
    assert life.dump() == life.known[new]


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_bit_that_flips_in_the_history_is_refused_and_never_leads_elsewhere(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("runtime.storage.object_records.SEGMENT_BYTES", 30_000)
    chance = random.Random(5)
    for _ in range(3):
        write_a_while(life, chance)
        life.checkpoint()
        life.close()
    points, now = sorted(life.known), life.dump()
    life.kill() if ending == "killed" else life.close()
    refused = 0
    for number in range(120):
        folder = copied(life.path.parent, tmp_path / "flipped")
        history = folder / f"{life.path.stem}.history"
        segment = chance.choice(segments(history))
        content = bytearray(segment.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        segment.write_bytes(content)
        copy, point = Life(folder / life.path.name, now=life.now + 10), chance.choice(points)
        assert copy.dump() == now, "what is there now is in the database"
        if number % 2:
            copy.sql(f"CREATE TABLE IF NOT EXISTS later_{number} (x)")
            copy.close()
        try:
            copy.back_to(point)
        except (InvalidBookmark, OSError):
            refused += 1
        else:
            assert copy.dump() == life.known[point], f"{number}: {point:x}"
        copy.close()
    assert refused


def test_many_pages_lead_back_in_many_records(life: Life) -> None:
    life.sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
    for _ in range(10):
        life.sql(
            "INSERT INTO t (y) SELECT randomblob(2000) FROM (SELECT 1 FROM sqlite_schema UNION ALL SELECT 2), "
            "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT i FROM n)"
        )
    full = life.bookmark()
    life.close()
    life.sql("UPDATE t SET y = randomblob(2000)")
    changed = life.bookmark()
    life.checkpoint()
    life.sql("DELETE FROM t")
    life.close()
    for point in (full, changed, full):
        life.back_to(point)
        assert life.dump() == life.known[point]


def test_without_history_none_is_kept_and_what_there_was_goes(life: Life) -> None:
    life.sql("CREATE TABLE t (x)")
    before = life.bookmark()
    life.close()
    for keeps in (False, True):
        life.file = open_object(life.path, LIMITS, lambda: life.now, keeps=keeps)
        life.sql("INSERT INTO t VALUES (1)")
        life.close()
    with pytest.raises(InvalidBookmark):
        life.back_to(before)


def test_a_log_that_was_written_without_history_is_not_taken_for_one(life: Life) -> None:
    life.file = open_object(life.path, LIMITS, lambda: life.now, keeps=False)
    for number in range(20):
        life.sql("CREATE TABLE IF NOT EXISTS t (x)", f"INSERT INTO t VALUES ({number})")
        if number == 10:
            life.checkpoint()
    life.kill()
    held = life.dump()
    point = life.bookmark()
    life.sql("DELETE FROM t")
    life.close()
    life.back_to(point)
    assert life.dump() == held


def test_what_is_too_old_or_too_much_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.object_records.SEGMENT_BYTES", 10_000)
    day, start = 86_400.0, 1_700_000_000.0
    lives = [Life(tmp_path / "notes" / "aa" / f"{name}.sqlite") for name in "ab"]
    folders = [ObjectHistory(life.path).folder for life in lives]
    for number in range(10):
        for life in lives:
            life.now = start + number * day
            write_a_while(life, random.Random(number))
            life.bookmark()
            life.close()

    def sizes() -> list[int]:
        return [sum(path.stat().st_size for path in segments(folder)) for folder in folders]

    before = sum(sizes())
    kept = sweep_histories(tmp_path, Retention(age_s=5.5 * day), lives[0].now, ())
    assert kept == sum(sizes())
    assert before * 0.5 < kept < before * 0.7
    for life in lives:
        with pytest.raises(InvalidBookmark, match="too old"):
            life.back_to(min(life.known))
    bound = kept // 2
    assert sweep_histories(tmp_path, Retention(total_bytes=bound), lives[0].now, ()) == sum(sizes()) <= bound
    assert min(sizes()) > bound * 0.3
    for life in lives:
        life.back_to(max(life.known))
        assert life.dump() == life.known[max(life.known)]
    lives[0].sql("INSERT INTO t VALUES (1000, 1)")
    assert sweep_histories(tmp_path, Retention(age_s=0), lives[0].now + 1, {folders[0]}) > 0
    assert segments(folders[0]) != []
    assert segments(folders[1]) == []
    for life in lives:
        life.close()
        point = life.bookmark()
        life.sql("DELETE FROM t")
        life.back_to(point)
        assert life.dump() == life.known[point]
        life.close()


def test_a_database_that_became_shorter_grows_again(life: Life) -> None:
    life.sql("CREATE TABLE t (x)", *(f"INSERT INTO t VALUES (randomblob({size}))" for size in (60_000, 9, 60_000)))
    long = life.bookmark()
    life.sql("DELETE FROM t WHERE length(x) > 9")
    connection = life.open().connection
    connection.authorizer = None
    connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)
    connection.execute("VACUUM")
    short = life.bookmark()
    life.sql("INSERT INTO t VALUES (randomblob(200000))")
    for point in (long, short, long):
        life.back_to(point)
        assert life.dump() == life.known[point]


@pytest.mark.parametrize("log", ["goes on", "began anew"])
def test_a_bit_that_flips_in_the_newest_record_before_a_kill_leads_to_no_mix(
    life: Life, tmp_path: Path, log: str
) -> None:
    chance = random.Random(log)
    write_a_while(life, chance)
    life.checkpoint()
    life.close()
    write_a_while(life, chance)
    life.bookmark()
    # Its record is the newest; what it replaced is in the database.
    life.checkpoint(*["INSERT OR REPLACE INTO t VALUES (50, 1)"] * (log == "goes on"))
    newest = ObjectHistory(life.path).records()[-1]
    write_a_while(life, chance)
    points, now = sorted(life.known), life.dump()
    life.kill()
    refused = 0
    for number in range(60):
        folder = copied(life.path.parent, tmp_path / "flipped")
        segment = folder / newest.path.relative_to(life.path.parent)
        content = bytearray(segment.read_bytes())
        # Every part of it in turn: the head, what the pages held, the length at the end.
        at = (chance.randrange(newest.length), chance.randrange(80), newest.length - 1 - chance.randrange(4))[
            number % 3
        ]
        content[newest.at + at] ^= 1 << chance.randrange(8)
        segment.write_bytes(content)
        copy = Life(folder / life.path.name, now=life.now + 10)
        assert copy.dump() == now, "what is there now is in the database and its log"
        point = chance.choice(points)
        try:
            copy.back_to(point)
        except (InvalidBookmark, OSError):
            refused += 1
        else:
            assert copy.dump() == life.known[point], f"{number}: {point:x}"
        copy.close()
    assert refused


@pytest.mark.parametrize("harm", ["a bit flips", "a sector is lost"])
def test_the_records_of_a_large_restore_that_was_cut_short_lead_to_no_mix(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    # Of so many pages the records are not deflated, and many of the pages are all but empty.
    chance = random.Random(harm)
    life.sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2400) SELECT i"
    life.sql(f"INSERT INTO t {numbers}, zeroblob(3000) FROM n")
    then = life.bookmark()
    life.close()
    life.sql("UPDATE t SET y = zeroblob(3001)")
    now = life.dump()
    life.close()

    def cut_short(*part: Any) -> Iterator[tuple[int, bytes]]:
        yield from itertools.islice(pages_then(*part), 1_000)
        raise OSError("the power is cut")

    def not_begun(*_: Any) -> None:
        raise OSError("the power is cut")

    with monkeypatch.context() as patch:
        if harm == "a bit flips":
            patch.setattr(object_restore, "pages_then", cut_short)
        else:  # no page is overwritten before the records are synced
            patch.setattr(object_restore, "_overwrite", not_begun)
        with pytest.raises(OSError, match="cut"):
            life.back_to(then)
    records = [record for record in ObjectHistory(life.path).records() if not record.has_log]
    assert len(records) > 8
    undo, refused = records[0].start, 0
    unsynced = [record for record in records if record.path == records[-1].path]
    for number in range(12):
        folder = copied(life.path.parent, tmp_path / "harmed")
        record = chance.choice(records if harm == "a bit flips" else unsynced)
        segment = folder / record.path.relative_to(life.path.parent)
        content = bytearray(segment.read_bytes())
        at = record.at + chance.randrange(512, record.length)
        if harm == "a bit flips":
            content[at] ^= 1 << chance.randrange(8)
        else:
            sector = slice(at // 512 * 512, min(at // 512 * 512 + 512, len(content)))
            content[sector] = bytes(sector.stop - sector.start)
        segment.write_bytes(content)
        copy = Life(folder / life.path.name, now=life.now + 10)
        try:
            copy.back_to(undo)
        except (StorageFailed, OSError):
            refused += 1
        else:
            assert copy.dump() == now, f"{number}: {record.place} at {at}"
        copy.close()
    assert refused == (12 if harm == "a bit flips" else 0)
