"""The server's side of one connection: what is allowed when, and what is answered."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from actors.filters import Filter
from actors.principal import ANYBODY, EVERYTHING, Capability, Principal
from actors.protocol.codes import CloseCode
from actors.protocol.cursor import Cursor
from actors.protocol.limits import Limits
from actors.protocol.messages import Err
from actors.protocol.rate import TokenBucket
from actors.protocol.remembered import Remembered
from actors.protocol.requests import Hello, Hist, Mod, Pub, Sub, Unsub
from actors.protocol.server import Close, Reply, ServerMachine, Step

HELLO = '{"t":"hello","id":1}'


def machine(
    *, counted: bool = False, welcomed: bool = True, capability: Capability = EVERYTHING, **limits: int
) -> ServerMachine:
    principal = Principal(user="", capability=capability) if welcomed else None
    state = Remembered(principal=principal, counted=counted, session="s_1" if welcomed else "")
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
    server.authenticated(ANYBODY, 0.0)
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
    assert fresh.patience(2.0, 0.0) == (3.0, Close(CloseCode.HELLO_TIMEOUT, "no hello within 5 s"))
    assert machine().patience(2.0, 0.0) is None
    steps(fresh, HELLO)  # on its way to the stream: not late any more
    assert fresh.patience(2.0, 0.0) is None


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


def test_after_a_reset_what_crossed_it_gives_way_to_the_same_name_asked_for_again() -> None:
    server = machine()
    grant(server, "x")
    assert json.loads(server.reset("F", 3)) == {
        "t": "reset",
        "epoch": "F",
        "head": 3,
        "reason": "the stream was restored",
    }
    assert not server.state.subs
    grant(server, "x")
    grant(server, "x", at=2)
    assert server.state.subs["x"].cursor == 2


def test_a_shard_that_left_memory_after_a_reset_still_takes_the_same_name_twice() -> None:
    before = machine()
    grant(before, "x")
    before.reset("F", 3)
    after = ServerMachine(before.limits, attrs.evolve(before.state))
    grant(after, "x")
    grant(after, "x", at=2)
    assert after.state.subs["x"].cursor == 2


PRICES = Capability(sub='{"types":["price.>"]}', pub=("price.>", "!price.secret"))


def wanted_filter(message: object) -> str:
    match message:
        case Mod(change=change):
            assert change.filter is not None
            return change.filter.canonical
        case Sub() | Hist():
            return message.filter.canonical
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("asked", "counts"),
    [
        ({}, {"types": ["price.>"]}),
        ({"types": ["price.*", "alert.>"]}, {"types": ["price.*"]}),
        ({"types": ["!price.test"]}, {"types": ["!price.test", "price.>"]}),
        ({"types": ["price.tick"], "entities": ["btc-*"]}, {"types": ["price.tick"], "entities": ["btc-*"]}),
    ],
)
def test_the_filter_that_counts_is_the_clients_and_the_capabilitys(asked: Any, counts: Any) -> None:
    server = machine(capability=attrs.evolve(PRICES, hist=True))
    grant_all = {"t": "sub", "id": 1, "s": "x", "filter": asked}
    (sub,) = steps(server, json.dumps(grant_all))
    assert isinstance(sub, Sub)
    server.subscribed(sub, group=1, since=Cursor("E", 0), head=0, recovered=None, lost=None)
    frames = (
        {"t": "sub", "id": 2, "s": "y", "filter": asked},
        {"t": "mod", "id": 3, "s": "x", "filter": asked, "backfill": {"last": 5}},
        {"t": "hist", "id": 4, "filter": asked, "from": "earliest"},
    )
    hello = Hello(id=1, subs=(sub,))
    (in_hello,) = server.wanted(attrs.evolve(hello, subs=(attrs.evolve(sub, filter=Filter.parse(asked)),)))
    for message in (sub, in_hello, *(step for frame in frames for step in steps(server, json.dumps(frame)))):
        assert json.loads(wanted_filter(message)) == counts


def test_what_a_capability_does_not_cover_is_forbidden() -> None:
    server = machine(capability=PRICES)
    elsewhere = {"types": ["alert.>"]}
    (sub,) = steps(server, '{"t":"sub","id":1,"s":"x","filter":{}}')
    assert isinstance(sub, Sub)
    server.subscribed(sub, group=1, since=Cursor("E", 0), head=0, recovered=None, lost=None)
    signal = {"entity": "e", "data": 1}
    frames = {
        "/filter": [
            {"t": "sub", "id": 2, "s": "y", "filter": elsewhere},
            {"t": "mod", "id": 2, "s": "x", "filter": elsewhere},
        ],
        "": [{"t": "hist", "id": 2, "filter": {}, "from": "earliest"}],
        "/signal/type": [
            {"t": "pub", "id": 2, "signal": signal | {"type": "alert"}},
            {"t": "pub", "id": 2, "signal": signal | {"type": "price.secret"}},
        ],
    }
    for at, group in frames.items():
        for frame in group:
            (step,) = steps(server, json.dumps(frame))
            error = said(step)
            assert (error["id"], error["code"], error["slug"], error["at"]) == (2, 403, "forbidden", at)
    forbidden, fine = server.wanted(
        Hello(id=1, subs=(attrs.evolve(sub, filter=Filter.parse(elsewhere)), attrs.evolve(sub, s="z")))
    )
    assert isinstance(forbidden, Err)
    assert (forbidden.code, forbidden.at, forbidden.s) == (403, "/subs/0/filter", "x")
    assert isinstance(fine, Sub)


def test_a_filter_that_is_too_much_together_with_the_capability_says_so() -> None:
    many = [{"f": f"/data/{n}", "op": "exists"} for n in range(16)]
    condition = {"any": [{"all": many}, {"all": many[:6]}, {"all": many[6:]}]}
    allowed = {"where": {"not": condition}}
    server = machine(capability=attrs.evolve(PRICES, sub=Filter.parse(allowed).canonical))
    (step,) = steps(server, json.dumps({"t": "sub", "id": 2, "s": "y", "filter": {"where": condition}}))
    error = said(step)
    assert (error["code"], error["slug"], error["at"]) == (422, "bad_filter", "/filter/where")
    assert "the token" in error["msg"]


def test_before_it_is_known_who_somebody_is_nothing_is_allowed() -> None:
    server = ServerMachine(Limits(), Remembered(session="s_1"))
    for frame in (
        '{"t":"sub","id":2,"s":"y","filter":{}}',
        '{"t":"hist","id":2,"filter":{},"from":"now"}',
        '{"t":"pub","id":2,"signal":{"type":"a","entity":"b","data":1}}',
    ):
        (step,) = steps(server, frame)
        assert said(step)["code"] == 403


def test_after_the_end_of_its_token_nothing_more_is_done() -> None:
    server = machine()
    server.authenticated(Principal(user="ann", capability=EVERYTHING, expires=100.0), 40.0)
    frame = '{"t":"pub","id":2,"signal":{"type":"a","entity":"b","data":1}}'
    (before,) = steps(server, frame, 99.9)
    assert isinstance(before, Pub)
    for message in (frame, '{"t":"ping"}', '{"t":"auth","id":3,"token":"x"}', "no json"):
        (after,) = steps(server, message, 100.0)
        assert isinstance(after, Close)
        assert after.code == CloseCode.TOKEN_EXPIRED


@pytest.mark.parametrize(("valid_s", "notice_s"), [(900, 840), (100, 50), (10, 5)])
def test_the_end_of_a_token_is_said_before_once_and_then_comes(valid_s: float, notice_s: float) -> None:
    server = machine()
    server.authenticated(Principal(user="ann", capability=EVERYTHING, expires=valid_s), 0.0)
    told = server.patience(0, 0.0)
    assert told is not None
    assert (told[0], said(told[1])["slug"]) == (notice_s, "token_expiring")
    server.noticed()
    ended = server.patience(0, notice_s)
    assert ended is not None
    assert isinstance(ended[1], Close)
    assert (ended[0], ended[1].code) == (valid_s - notice_s, CloseCode.TOKEN_EXPIRED)
