"""The server's side of one connection: what is allowed when, and what is answered."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from actors.protocol.codes import CloseCode
from actors.protocol.cursor import Cursor
from actors.protocol.limits import Limits
from actors.protocol.messages import Hello, Pub, Sub, Unsub
from actors.protocol.rate import TokenBucket
from actors.protocol.server import Close, Remembered, Reply, ServerMachine, Step

HELLO = '{"t":"hello","id":1}'


def machine(*, counted: bool = False, welcomed: bool = True, **limits: int) -> ServerMachine:
    state = Remembered(counted=counted, session="s_1" if welcomed else "")
    return ServerMachine(Limits(**limits), state)


def steps(server: ServerMachine, frame: str | bytes, now: float = 0.0) -> list[Step]:
    return [server.step(message, now) for message in server.receive(frame)]


def said(step: Step) -> dict[str, Any]:
    assert isinstance(step, Reply)
    message: dict[str, Any] = json.loads(step.text)
    return message


def grant(server: ServerMachine, s: str, *, at: int = 5, head: int = 5, on_gap: str = "fail", **more: Any) -> list[str]:
    (sub,) = steps(server, json.dumps({"t": "sub", "id": 9, "s": s, "filter": {}, "on_gap": on_gap}))
    assert isinstance(sub, Sub)
    fields = {"recovered": None, "lost": None, **more}
    answer, follows = server.subscribed(sub, group=7, since=Cursor("E", at), head=head, **fields)
    return [answer.encode(), *follows]


def test_the_first_message_is_hello() -> None:
    for frame in ('{"t":"sub","id":1,"s":"x","filter":{}}', '{"t":"nothing"}', "no json", b"\x00"):
        (step,) = steps(machine(welcomed=False), frame)
        assert isinstance(step, Close)
        assert step.code == CloseCode.NOT_HELLO


def test_a_second_hello_closes() -> None:
    server = machine(welcomed=False)
    first, second = steps(server, f"{HELLO}\n{HELLO}")
    assert isinstance(first, Hello)
    assert isinstance(second, Close)
    assert second.code == CloseCode.ALREADY_HELLO


def test_several_messages_in_a_frame_are_taken_in_order() -> None:
    server = machine()
    frame = '{"t":"pub","id":2,"signal":{"type":"a","entity":"b","data":1}}\n{"t":"ping"}\n{"t":"unsub","id":3,"s":"x"}'
    pub, pong, refused = steps(server, frame)
    assert isinstance(pub, Pub)
    assert said(pong) == {"t": "pong"}
    assert said(refused)["code"] == 404
    assert said(refused)["id"] == 3


def test_a_bad_message_is_answered_and_many_close() -> None:
    server = machine()
    answers = [step for _ in range(10) for step in steps(server, '{"t":"sub","id":4,"s":"x","filter":{"types":[]}}')]
    assert {said(step)["slug"] for step in answers} == {"bad_filter"}
    (last,) = steps(server, "{")
    assert isinstance(last, Close)
    assert last.code == CloseCode.BAD_MESSAGE


def test_a_name_in_use_is_refused_and_the_connection_stays() -> None:
    server = machine()
    grant(server, "x")
    (refused,) = steps(server, '{"t":"sub","id":5,"s":"x","filter":{}}')
    assert said(refused) | {"msg": ""} == {
        "t": "err", "id": 5, "code": 409, "slug": "duplicate_sub", "msg": "", "retry": False,
    }  # fmt: skip


def test_subscriptions_are_bounded() -> None:
    server = machine(subs=2)
    grant(server, "x")
    grant(server, "y")
    (refused,) = steps(server, '{"t":"sub","id":5,"s":"z","filter":{}}')
    assert said(refused)["code"] == 413


def test_hello_with_a_name_twice_and_one_too_many_answers_each() -> None:
    server = machine(welcomed=False, subs=2)
    subs: list[dict[str, Any]] = [{"s": s, "filter": {}} for s in ("a", "a", "b", "c")]
    (hello,) = steps(server, json.dumps({"t": "hello", "id": 1, "subs": subs}))
    assert isinstance(hello, Hello)
    plan = server.wanted(hello)
    assert [getattr(one, "code", None) for one in plan] == [None, 409, None, 413]
    assert [getattr(one, "s", None) for one in plan] == ["a", "a", "b", "c"]


def test_pages_join_and_live() -> None:
    server = machine()
    assert json.loads(grant(server, "x", at=2, head=9)[0])["from"] == "E:2"
    (page,) = server.page("x", 2, 9, b'{"o":3}')
    assert json.loads(page) == {"t": "sig", "s": "x", "a": 2, "b": 9, "d": [{"o": 3}]}
    assert json.loads(server.joined("x")) == {"t": "live", "s": "x", "g": 7, "b": 9}
    assert server.page("x", 9, 9, b"") == []


def test_what_retention_removed_during_catch_up_is_told_as_a_gap() -> None:
    server = machine()
    grant(server, "x", at=2, head=9)
    gap, page = server.page("x", 5, 9, b"")
    assert json.loads(gap) == {"t": "gap", "s": "x", "a": 2, "b": 5, "reason": "retention"}
    assert json.loads(page)["a"] == 5


@pytest.mark.parametrize(("on_gap", "frames"), [("fail", ["subok"]), ("skip", ["subok", "gap"])])
def test_a_cursor_that_is_too_old(on_gap: str, frames: list[str]) -> None:
    server = machine()
    at = 2 if on_gap == "skip" else 9
    texts = grant(server, "x", at=at, head=9, on_gap=on_gap, recovered=False, lost=(2, 6))
    assert [json.loads(text)["t"] for text in texts] == frames
    assert json.loads(texts[0])["lost"] == {"a": 2, "b": 6}
    assert server.state.subs["x"].cursor == (6 if on_gap == "skip" else 9)


def test_rates_count_only_for_those_they_apply_to() -> None:
    free, counted = machine(), machine(counted=True, rate_burst=2)
    assert all(said(step) == {"t": "pong"} for _ in range(500) for step in steps(free, '{"t": "ping"}'))
    answers = [step for _ in range(4) for step in steps(counted, '{"t": "ping"}')]
    assert [said(step)["t"] for step in answers] == ["pong", "pong", "err", "err"]
    assert said(answers[2])["retry_after_ms"] > 0
    (last,) = steps(counted, '{"t": "ping"}')
    assert isinstance(last, Close)
    assert last.code == CloseCode.RATE_LIMITED


def test_deadlines() -> None:
    fresh = machine(welcomed=False)
    rest_s, close = fresh.patience(2.0, 1.0, 60.0)
    assert (rest_s, close.code) == (3.0, CloseCode.HELLO_TIMEOUT)
    rest_s, close = machine().patience(2.0, 1.0, 60.0)
    assert (rest_s, close.code) == (59.0, CloseCode.NO_HEARTBEAT)
    steps(fresh, HELLO)  # on its way to the stream: not late any more
    assert fresh.patience(2.0, 1.0, 60.0)[1].code == CloseCode.NO_HEARTBEAT


def test_what_is_remembered_is_enough_to_go_on() -> None:
    first = machine()
    grant(first, "x")
    second = ServerMachine(first.limits, attrs.evolve(first.state))
    (unsub,) = steps(second, '{"t":"unsub","id":3,"s":"x"}')
    assert isinstance(unsub, Unsub)
    assert json.loads(second.unsubscribed(unsub)) == {"t": "ok", "id": 3}
    assert not second.state.subs


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(per_s=10, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s == pytest.approx(0.1)
    assert bucket.take(0.1)
    assert not bucket.take(0.15)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
