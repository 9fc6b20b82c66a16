"""When a client tries again: delays and close codes, from the shared vectors."""

import json
from pathlib import Path

import pytest

import actors.protocol
from actors.protocol.backoff import Backoff, backoff_ms
from actors.protocol.codes import ERROR_CODES, CloseCode, after_close, close_name

VECTORS = json.loads((Path(actors.protocol.__file__).parent / "vectors" / "backoff.json").read_text())


@pytest.mark.parametrize("case", VECTORS["delays"], ids=lambda case: f"{case['attempt']} {case['random']}")
def test_delays(case):
    assert backoff_ms(case["attempt"], case["random"]) == case["delay_ms"]


@pytest.mark.parametrize("case", VECTORS["after_close"], ids=lambda case: str(case["code"]))
def test_what_a_close_code_asks_for(case):
    assert after_close(case["code"]).value == case["does"]


def test_every_code_of_the_protocol_has_a_vector_and_a_name():
    covered = {case["code"] for case in VECTORS["after_close"]}
    assert {int(code) for code in CloseCode} <= covered
    assert close_name(4103) == "slow_consumer"
    assert close_name(4999) == "unknown"
    assert close_name(None) == "no code"


def test_slugs_are_unique():
    assert len({error.slug for error in ERROR_CODES}) == len(ERROR_CODES)


def test_only_a_healthy_connection_resets_the_count():
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay_ms() for _ in range(3)] == [500, 1000, 2000]
    backoff.ended(9_999)
    assert backoff.delay_ms() == 4000
    backoff.ended(10_000)
    assert backoff.delay_ms() == 500


def test_a_planned_end_is_no_failure():
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay_ms() for _ in range(2)] == [500, 1000]
    assert backoff.delay_ms((0, 1_000)) == 1000
    assert backoff.delay_ms() == 2000
    backoff.ended(5, planned=True)
    assert [backoff.delay_ms((0, 1_000)), backoff.delay_ms()] == [1000, 500]


def test_a_window_is_kept():
    assert Backoff(lambda: 0.25).delay_ms((2_000, 6_000)) == 3_000
