"""Both client machines give the same answers to random lives: whoever changes one changes the other."""

from __future__ import annotations

import shutil

import pytest

from tests.actors.client.differential import compare

CASES = 4_000  # a quarter of a minute; `make differential` takes five
ALL_EVENTS = {
    *("open", "close 1000", "close 4198", "close 4199", "signals", "gap epoch", "gap retention", "gap slow"),
    *(
        "gap-detected",
        "published",
        "refused",
        "notice",
        "snap",
        "modified",
        "modify-refused",
        "sub catchup",
        "sub live",
        "sub failed",
    ),
    *("sent hello", "sent sub", "sent unsub", "sent mod", "sent pub", "sent auth", "sent ack", "sent ping"),
    *("state connecting", "state connected", "state resuming", "state reconnecting", "state draining", "state closed"),
}


@pytest.mark.real
def test_python_and_javascript_answer_random_lives_alike() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH")
    seen = compare(node, CASES)
    assert {name for name in ALL_EVENTS if seen[name] < CASES / 1_000} == set(), "the lives have become too dull"
