"""Ingest: schedules, exactly once through crashes, sources that fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import psutil
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.app import app
from actors.ingest.schedule import InvalidSchedule, Schedule
from actors.ingest.source import Batch, InvalidOptions, World
from actors.ingest.sources.host import entity, host
from actors.settings import Settings, SourceSettings
from actors.signals import Draft, is_name
from actors.stream import STREAM
from runtime.testing import RunningServer, start_server


class Counter:
    """A source whose cursor counts; each fetch gives the next few numbers."""

    def __init__(self, world: World, options: Mapping[str, Any]) -> None:
        self.name = world.name
        self.options = options

    async def fetch(self, cursor: str | None) -> Batch:
        if self.options.get("fails"):
            raise ConnectionError("no route to the source")
        if self.options.get("hangs"):
            await trio.sleep_forever()
        first = int(cursor or 0) + 1
        numbers = range(first, first + self.options.get("count", 2))
        drafts = tuple(Draft.of("count.up", self.name, {"n": n}, id=f"{self.name}:{n}") for n in numbers)
        return Batch(str(numbers[-1]), drafts)


@pytest.fixture
def _counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "kinds", {"counter": Counter})


def configured(*sources: SourceSettings) -> Settings:
    return Settings(sources=sources)


def counter(name: str = "c", **how: Any) -> SourceSettings:
    return SourceSettings(kind="counter", name=name, **how)


async def head(server: RunningServer) -> int:
    found: int = (await server.env.broadcasters.get_by_name(STREAM).bounds()).head
    return found


async def status(server: RunningServer, name: str = "c") -> dict[str, Any]:
    answer = await server.request("GET", "/v1/sources")
    (found,) = [one for one in json.loads(answer.body)["sources"] if one["name"] == name]
    result: dict[str, Any] = found
    return result


@pytest.mark.usefixtures("_counters")
async def test_a_source_is_asked_on_its_schedule(autojump_clock: Any) -> None:
    async with start_server(app, settings=configured(counter(schedule="@every 5s"))) as server:
        await trio.sleep(22)
        assert await head(server) == 2 * 5
        shown = await status(server)
        assert (shown["produced"], shown["duplicates"], shown["failures"], shown["cursor"]) == (10, 0, 0, "10")
        assert shown["next"] - shown["last_success"] == pytest.approx(5, abs=0.1)


@pytest.mark.usefixtures("_counters")
async def test_a_cron_expression_is_followed(autojump_clock: Any) -> None:
    async with start_server(app, settings=configured(counter(schedule="*/5 * * * *"))) as server:
        await trio.sleep(299)
        assert await head(server) == 0
        await trio.sleep(2)
        assert await head(server) == 2
        await server.restart()  # a restart is no reason to ask
        await trio.sleep(60)
        assert await head(server) == 2


@pytest.mark.usefixtures("_counters")
async def test_a_crash_between_publication_and_cursor_loses_and_doubles_nothing(autojump_clock: Any) -> None:
    async with start_server(app, settings=configured(counter())) as server:
        ingest = server.env.ingests.get_by_name("c")
        for n in range(60):
            await trio.sleep(0.9 if n % 3 else 0.0)
            for _ in range(n % 11):
                await trio.lowlevel.checkpoint()
            server.abort(ingest)
            if n % 7 == 0:
                await server.crash()
                await server.start()
                ingest = server.env.ingests.get_by_name("c")
        await trio.sleep(20)
        newest = await head(server)
        assert newest > 40
        stream = server.env.broadcasters.get_by_name(STREAM)
        published = await stream.publish(
            tuple(Draft.of("count.up", "c", {"n": n}, id=f"c:{n}") for n in range(newest - 20, newest + 1))
        )
        assert [one.offset for one in published.receipts] == list(range(newest - 20, newest + 1))


@pytest.mark.usefixtures("_counters")
async def test_a_failing_source_is_told_retried_and_disturbs_nobody(autojump_clock: Any) -> None:
    sources = (
        counter("bad", options={"fails": True}),
        counter("stuck", options={"hangs": True}, timeout_s=5),
        counter("good"),
        counter("greedy", options={"count": 1_001}),
    )
    async with start_server(app, settings=configured(*sources)) as server:
        await trio.sleep(100.5)
        assert (await status(server, "good"))["produced"] == 2 * 101
        bad = await status(server, "bad")
        assert 5 <= bad["failures"] <= 9  # 1, 2, 4, 8 … s apart, not every second
        assert bad["error"] == "ConnectionError: no route to the source"
        assert bad["last_success"] is None
        assert bad["next"] > bad["last_failure"]
        assert "TooSlowError" in (await status(server, "stuck"))["error"]
        assert "1,001 signals" in (await status(server, "greedy"))["error"]
        assert await head(server) == 2 * 101


@pytest.mark.usefixtures("_counters")
async def test_a_source_that_is_not_configured_any_more_rests(autojump_clock: Any) -> None:
    async with start_server(app, settings=configured(counter())) as server:
        await trio.sleep(3.5)
        seen = await head(server)
        await server.stop()
        server._settings = Settings(sources=(counter(),), sources_enabled=False)
        await server.start()
        await trio.sleep(10)
        assert await head(server) == seen
        assert json.loads((await server.request("GET", "/v1/sources")).body) == {"sources": []}
        assert not await server.run_alarm(server.env.ingests.get_by_name("c"))


async def test_the_host_source_publishes_this_machine(autojump_clock: Any) -> None:
    async with start_server(app, settings=Settings()) as server:
        await trio.sleep(7.5)
        shown = await status(server, "host")
        assert shown["error"] == ""
        assert shown["cursor"] == "8"
        assert await head(server) == shown["produced"]


async def test_host_signals_have_legal_names_and_ids_of_their_tick() -> None:
    async def inline(fn: Any, /, *args: Any) -> Any:
        return fn(*args)

    clock = iter(range(1_000))
    source = host(World(name="host", now=lambda: float(next(clock)), run_blocking=inline), {"processes": 2})
    found: dict[str, set[str]] = {}
    for tick in range(11):
        before = psutil.cpu_times(percpu=True)
        while any(sum(now) == sum(then) for now, then in zip(psutil.cpu_times(percpu=True), before, strict=True)):
            pass  # the system counts in hundredths of a second, and usage is between two counts
        batch = await source.fetch(str(tick) if tick else None)
        assert batch.cursor == str(tick + 1)
        assert [draft.id for draft in batch.signals] == [f"host:{tick + 1}:{n}" for n in range(len(batch.signals))]
        for draft in batch.signals:
            found.setdefault(draft.type, set()).add(draft.entity)
    assert "cpu0" in found["host.cpu.usage"]
    assert found["host.memory.usage"] == {"memory", "swap"}
    assert found["host.load"] == {"load"}
    assert "host.net.io" in found
    assert "top1" in found["host.process.top"]
    with pytest.raises(InvalidOptions, match="processes"):
        host(World(name="host", now=lambda: 0.0, run_blocking=inline), {"proceses": 1})


@given(st.text())
def test_what_the_system_calls_a_thing_becomes_a_legal_name(name: str) -> None:
    assert is_name(entity(name))


@given(st.sampled_from(["@every 1s", "@every 250ms", "*/5 * * * *", "0 3 * * 1"]), st.floats(0, 1e9), st.floats(0, 1e5))
def test_the_next_due_time_is_in_the_future(text: str, due: float, late: float) -> None:
    schedule = Schedule.parse(text)
    following = schedule.after(due, due + late)
    assert following > due + late - 1e-6
    if schedule.every_s is not None:
        assert following <= due + late + schedule.every_s + 1e-6


@pytest.mark.parametrize("text", ["", "@every", "@every 0s", "@every 99d", "@fortnightly", "* * *", "61 * * * *", "x"])
def test_a_wrong_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule):
        Schedule.parse(text)
    with pytest.raises(ValueError, match="schedule"):
        counter(schedule=text)
