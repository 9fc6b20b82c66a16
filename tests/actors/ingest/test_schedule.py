"""When a source is due: time zones, daylight saving, missed runs; and that nothing drifts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.app import app
from actors.ingest.schedule import MISSED_RUNS, InvalidSchedule, Schedule
from actors.ingest.source import Batch, SourceFailed, World
from actors.settings import Settings, SourceSettings
from actors.signals import Draft
from runtime.testing import start_server
from tests.actors.ingest.kit import START, only, published, status

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def due_times(schedule: Schedule, start: float, count: int) -> list[str]:
    found = []
    for _ in range(count):
        start = schedule.after(start)
        found.append(datetime.fromtimestamp(start, BERLIN).isoformat())
    return found


def test_a_cron_time_is_that_of_its_zone() -> None:
    schedule = Schedule.parse("0 9 * * 1-5", "Europe/Berlin")
    assert due_times(schedule, at("2026-01-02T12:00"), 2) == ["2026-01-05T09:00:00+01:00", "2026-01-06T09:00:00+01:00"]


def test_a_time_that_daylight_saving_skips_runs_right_after_the_gap() -> None:
    schedule = Schedule.parse("30 2 * * *", "Europe/Berlin")
    assert due_times(schedule, at("2026-03-28T03:00"), 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_time_that_comes_twice_runs_once() -> None:
    schedule = Schedule.parse("30 2 * * *", "Europe/Berlin")
    assert due_times(schedule, at("2026-10-24T03:00"), 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_every_half_hour_runs_as_often_as_time_passes() -> None:
    schedule = Schedule.parse("*/30 * * * *", "Europe/Berlin")
    start = at("2026-10-25T01:30")
    found = schedule.between(start, start + 3 * 3_600, 100)
    assert found == [start + 1_800 * n for n in range(7)]


@pytest.mark.parametrize(
    ("name", "following"),
    [("@hourly", "11:00"), ("@daily", "2026-01-02T00:00"), ("@weekly", "2026-01-04T00:00")],
)
def test_common_schedules_have_names(name: str, following: str) -> None:
    text = following if "T" in following else f"2026-01-01T{following}"
    assert Schedule.parse(name, "Europe/Berlin").after(at("2026-01-01T10:59")) == at(text)


def test_what_is_no_schedule_is_refused_with_what_is_one() -> None:
    with pytest.raises(InvalidSchedule, match="@every 1s"):
        Schedule.parse("@often")
    with pytest.raises(InvalidSchedule, match="6 fields"):
        Schedule.parse("* * * * * *")
    with pytest.raises(InvalidSchedule, match="Europe/Berlin"):
        Schedule.parse("@hourly", "Mars/Olympus")
    for name in ("../../etc/passwd", "", "Europe"):
        with pytest.raises(ValueError, match="timezone"):
            SourceSettings(kind="host", timezone=name)


@given(
    st.sampled_from(["@every 5s", "*/7 * * * *", "30 2 * * *", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.integers(0, 400),
    st.floats(0, 40),
)
def test_looking_back_finds_what_looking_forward_found(text: str, zone: str, day: int, days: float) -> None:
    schedule = Schedule.parse(text, zone)
    first = schedule.after(START + day * 86_400)
    step = schedule.after(first) - first
    now = first + min(days * 86_400, 60 * step)
    forward = [first]
    while (following := schedule.after(forward[-1])) <= now:
        forward.append(following)
    assert schedule.between(first, now, 200) == forward
    assert schedule.between(first, now, 3) == forward[-3:]


def test_missed_runs_are_run_once_skipped_or_caught_up() -> None:
    schedule = Schedule.parse("@hourly")
    due, late = at("2026-01-01T10:00"), at("2026-01-01T15:30")
    assert schedule.due_run(due, late, "run_once") == at("2026-01-01T15:00")
    assert schedule.due_run(due, late, "skip") is None
    assert schedule.due_run(due, late, "all") == due
    assert schedule.due_run(due, due + 59, "skip") == due
    month = due + timedelta(days=30).total_seconds()
    assert schedule.due_run(due, month, "all") == month - (MISSED_RUNS - 1) * 3_600


class Diary:
    """A source that notes when its runs were due and when they began."""

    runs: list[tuple[float, float]]
    takes_s = 0.0
    fails = 0

    def __init__(self, world: World, options: Any) -> None:
        self.world = world

    async def fetch(self, cursor: str | None) -> Batch:
        self.runs.append((self.world.due() - START, self.world.now() - START))
        await trio.sleep(self.takes_s)
        if Diary.fails:
            Diary.fails -= 1
            raise SourceFailed("not now", retry_s=7)
        number = int(cursor or 0) + 1
        return Batch(str(number), (Draft.of("run", "s", number, id=f"s:{number}"),))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> type[Diary]:
    monkeypatch.setattr(Settings, "kinds", {"diary": Diary})
    monkeypatch.setattr(Diary, "takes_s", 0.0)
    monkeypatch.setattr(Diary, "fails", 0)
    Diary.runs = []
    return Diary


def diary_source(**how: Any) -> SourceSettings:
    return SourceSettings(kind="diary", name="s", **how)


async def test_runs_do_not_drift(autojump_clock: Any, diary: type[Diary]) -> None:
    diary.takes_s = 0.7
    async with start_server(app, settings=only(diary_source(schedule="@every 5s"))):
        await trio.sleep(101)
    assert [due for due, _ in diary.runs] == pytest.approx([5.0 * n for n in range(21)], abs=0.01)
    assert [began for _, began in diary.runs] == pytest.approx([5.0 * n for n in range(21)], abs=0.05)


@pytest.mark.parametrize(
    ("missed", "begin"),
    [
        ("run_once", [0, 25, 50, 75]),
        ("skip", [0, 30, 60, 90]),
        ("all", [0, 25, 50, 75]),
    ],
)
async def test_runs_never_overlap(autojump_clock: Any, diary: type[Diary], missed: Any, begin: list[float]) -> None:
    diary.takes_s = 25
    async with start_server(app, settings=only(diary_source(schedule="@every 10s", missed=missed))):
        await trio.sleep(74)
        diary.takes_s = 0
        await trio.sleep(25)
    assert [began for _, began in diary.runs][:4] == pytest.approx(begin, abs=0.1)
    if missed == "all":
        assert [due for due, _ in diary.runs][:4] == pytest.approx([0, 10, 20, 30], abs=0.1)


@pytest.mark.parametrize(
    ("missed", "due"), [("run_once", [3_600 * 5]), ("skip", []), ("all", [3_600 * n for n in range(1, 6)])]
)
async def test_runs_missed_while_the_server_was_down(
    autojump_clock: Any, diary: type[Diary], missed: Any, due: list[float]
) -> None:
    async with start_server(app, settings=only(diary_source(schedule="@hourly", missed=missed))) as server:
        await trio.sleep(60)
        await server.stop()
        await trio.sleep(3_600 * 5 + 600)
        await server.start()
        await trio.sleep(60)
        assert [when for when, _ in diary.runs] == due
        await trio.sleep(3_600)
        assert [when for when, _ in diary.runs] == [*due, 3_600 * 6]


async def test_jitter_spreads_starts_and_moves_no_due_time(autojump_clock: Any, diary: type[Diary]) -> None:
    source = diary_source(schedule="@every 10s", jitter_s=4)
    async with start_server(app, settings=only(source)):
        await trio.sleep(300)
    late = [began - due for due, began in diary.runs]
    assert [due for due, _ in diary.runs] == pytest.approx([10.0 * n for n in range(len(late))], abs=0.01)
    assert 0 <= min(late) < 1 < 3 < max(late) < 4.1


async def test_a_failed_run_is_tried_again_before_a_distant_due_time(autojump_clock: Any, diary: type[Diary]) -> None:
    diary.fails = 2
    async with start_server(app, settings=only(diary_source(schedule="@hourly"))) as server:
        await trio.sleep(3_600 + 1)
        shown = await status(server, "s")
        assert (shown["failures"], shown["error"]) == (1, "SourceFailed: not now")
        assert shown["next"] - shown["last_failure"] == pytest.approx(7, abs=0.1)
        await trio.sleep(20)
        assert [round(began) for _, began in diary.runs] == [3_600, 3_607, 3_614]
        shown = await status(server, "s")
        assert (shown["failures"], shown["error"], shown["produced"]) == (0, "", 1)
        assert shown["next"] == START + 7_200
        assert len(await published(server)) == 1


async def test_a_changed_schedule_is_followed_from_the_next_start(autojump_clock: Any, diary: type[Diary]) -> None:
    async with start_server(app, settings=only(diary_source(schedule="@yearly"))) as server:
        await server.stop()
        server._settings = only(diary_source(schedule="@every 10s"))
        await server.start()
        await trio.sleep(11)
        assert len(diary.runs) == 2
