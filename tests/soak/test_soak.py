"""The short form of `make soak`, and that its check finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from actors.signals import Signal
from tests.browser.serving import Server
from tests.soak.readers import Reader, Told, check, entity_of
from tests.soak.soak import Plan, Sample, Soak

SHORT = Plan(clients=12, stalled_share=0.25, minutes=0.2, restart_s=6, rate=40)
PATIENCE_S = 180


@pytest.mark.real
async def test_a_restart_among_stalled_readers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    lines: list[str] = []
    soak = Soak(server, SHORT, lines.append)
    try:
        with trio.fail_after(PATIENCE_S):
            await soak.run()
    finally:
        server.kill()
    assert soak.told.violations == []
    assert len(soak.down_s) == 1
    assert len(lines) == 2
    assert len(soak.told.acknowledged) > 50
    assert {reader.received for reader in soak.readers if reader.entity is None} == {len(soak.told.ids)}
    assert all(reader.received for reader in soak.readers)
    assert all(reader.sockets > 1 for reader in soak.readers)


@pytest.mark.real
async def test_a_reader_that_stalls_is_cut_off_and_misses_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    soak = Soak(server, Plan(clients=4, stalled_share=0.5, minutes=0.25, restart_s=0, rate=40), lambda _: None)
    try:
        with trio.fail_after(PATIENCE_S):
            await soak.run()
    finally:
        server.kill()
    assert soak.told.violations == []
    of_everything = [reader for reader in soak.readers if reader.entity is None]
    assert {reader.stalls: reader.sockets > 1 for reader in of_everything} == {True: True, False: False}


def _told(*ids: str) -> Told:
    told = Told()
    for offset, id_ in enumerate(ids, start=1):
        told.is_at(offset, id_)
        told.acknowledged[id_] = offset
    return told


def _signal(offset: int, id_: str) -> Signal:
    return Signal(o=offset, id=id_, type="soak.tick", entity=entity_of(id_), ts=0, json=b"{}")


def test_a_reader_that_has_everything_in_order_is_no_violation() -> None:
    told = _told("p-0", "p-1")
    reader = Reader(1, told, entity=None, stalls=False)
    reader.take(_signal(1, "p-0"))
    reader.take(_signal(2, "p-1"))
    check([reader], told)
    assert told.violations == []


@pytest.mark.parametrize(
    ("received", "violation"),
    [
        ([(1, "p-0")], "reader 1: 1 signals, 2 match its filter"),
        ([(1, "p-0"), (2, "p-1"), (2, "p-1")], "reader 1: offset 2 after 2"),
        ([(2, "p-1"), (1, "p-0")], "reader 1: offset 1 after 2"),
        ([(1, "p-0"), (2, "p-2")], "offset 2 was p-1 and is p-2"),
        ([(1, "p-0"), (2, "p-1"), (3, "p-1")], "1 signals are in the log twice"),
    ],
    ids=["lost", "doubled", "out of order", "changed", "stored twice"],
)
def test_what_a_reader_was_told_wrong_is_a_violation(received: list[tuple[int, str]], violation: str) -> None:
    told = _told("p-0", "p-1")
    reader = Reader(1, told, entity=None, stalls=False)
    for offset, id_ in received:
        reader.take(_signal(offset, id_))
    check([reader], told)
    assert violation in told.violations


def test_memory_that_grows_is_a_violation(tmp_path: Path) -> None:
    plan = Plan(minutes=4, restart_s=60, warm_minutes=3)
    soak = Soak(Server(tmp_path / "data"), plan, lambda _: None)
    for rss in (90.0, 95.0, 100.0, 106.0):
        soak.samples.append(
            Sample(at_s=0, age_s=60, rss_mib=rss, down_s=0, acknowledged=0, received=0, behind=0),
        )
    soak.check_memory()
    assert "106.0 MiB at the end" in soak.told.violations[0]
    soak.told.violations.clear()
    soak.samples[-1] = soak.samples[2]
    soak.check_memory()
    assert soak.told.violations == []
