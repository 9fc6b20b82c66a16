"""The client machine against the language-neutral vectors."""

import json
from pathlib import Path

import msgpack
import pytest

import actors.protocol
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.client import ClientMachine
from actors.protocol.cursor import Cursor, Last
from actors.protocol.encoding import ENCODINGS, JSON
from actors.protocol.requests import Change
from actors.signals import Draft

VECTORS = Path(actors.protocol.__file__).parent / "vectors"
CASES = [
    pytest.param(vector, id=f"{path.stem}: {vector['name']}")
    for path in sorted(VECTORS.glob("*.json"))
    if path.stem not in ("backoff", "filters")
    for vector in json.loads(path.read_text())
]


class Draws:
    def __init__(self, draws):
        self.draws = list(draws)

    def __call__(self):
        return self.draws.pop(0) if len(self.draws) > 1 else self.draws[0]


def since_of(value):
    match value:
        case {"cursor": text}:
            return Cursor.parse(text)
        case {"last": count}:
            return Last(count)
        case _:
            return value


def change_of(wanted):
    filter_, backfill = wanted.get("filter"), wanted.get("backfill")
    return Change(
        filter=None if filter_ is None else Filter.parse(filter_),
        backfill=None if backfill is None else since_of(backfill),
    )


def event_to_json(event):
    match event:
        case happened.Open(socket=socket, url=url):
            return {"e": "open", "socket": socket, "url": url}
        case happened.Close(code=code, socket=socket):
            return {"e": "close", "code": int(code), "socket": socket}
        case happened.ClientState():
            return {
                "e": "state",
                "state": event.state,
                "attempt": event.attempt,
                "delay_ms": None if event.delay_ms is None else int(event.delay_ms),
                "code": None if event.code is None else int(event.code),
                "terminal": event.terminal,
                "session": event.session,
                "resumed": event.resumed,
            }
        case happened.SubState():
            return {"e": "sub", "s": event.s, "state": event.state, "code": event.code}
        case happened.Signals():
            return {"e": "signals", "s": event.s, "o": [signal.o for signal in event.signals], "c": event.c}
        case happened.Snap():
            return {"e": "snap", "s": event.s, "o": [signal.o for signal in event.signals], "c": event.c}
        case happened.Modified():
            return {"e": "modified", "s": event.s, "c": event.c}
        case happened.ModifyRefused():
            return {"e": "modify-refused", "s": event.s, "code": event.code, "slug": event.slug}
        case happened.Gap():
            return {"e": "gap", "s": event.s, "a": event.a, "b": event.b, "reason": event.reason}
        case happened.GapDetected():
            return {"e": "gap-detected", "s": event.s, "c": event.c, "a": event.a}
        case happened.Published():
            return {"e": "published", "id": event.id, "o": event.o, "epoch": event.epoch, "dup": event.dup}
        case happened.PublishRefused():
            return {"e": "refused", "id": event.id, "code": event.code, "slug": event.slug}
        case happened.Notice():
            return {"e": "notice", "code": event.code, "slug": event.slug}


def agrees(expected, actual):
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(agrees(value, actual.get(key)) for key, value in expected.items())
    if isinstance(expected, list):
        return isinstance(actual, list) and len(expected) == len(actual) and all(map(agrees, expected, actual))
    return type(expected) is type(actual) and expected == actual


def packed(line):
    try:
        return msgpack.packb(json.loads(line))
    except ValueError:
        return b"\xc1"


class Runner:
    def __init__(self, draws, features, encoding):
        self.machine = ClientMachine(Draws(draws), features=tuple(features), encoding=encoding)
        self.encoding = encoding
        self.now = 0
        self.sockets = 1

    def give(self, step):
        events = self.answer(step)
        self.sockets += sum(isinstance(event, happened.Open) and event.socket > self.sockets for event in events)
        return events

    def sent(self):
        """The messages of each socket, with its number."""
        for socket in range(1, self.sockets + 1):
            for text in self.machine.texts_to_send(socket):
                assert text == '{"t":"ping"}' or "ping" not in text
                for message in self.encoding.parse(self.encoding.encode(text)):
                    yield {**message, "socket": socket}

    def encoded(self, text):
        """The frame; a message that is no JSON becomes one that is no MessagePack."""
        if self.encoding is JSON or text == '{"t":"pong"}':
            return text
        return b"".join(packed(line) for line in text.split("\n"))

    def answer(self, step):
        socket = step.get("socket")
        match step:
            case {"app": "start"}:
                return self.machine.start(self.now)
            case {"app": "stop"}:
                return self.machine.stop()
            case {"app": {"subscribe": wanted}}:
                self.machine.subscribe(
                    wanted["s"],
                    Filter.parse(wanted["filter"]),
                    since_of(wanted.get("from", "now")),
                    wanted.get("on_gap", "fail"),
                )
                return []
            case {"app": {"modify": wanted}}:
                self.machine.modify(wanted["s"], change_of(wanted))
                return []
            case {"app": {"unsubscribe": name}}:
                self.machine.unsubscribe(name)
                return []
            case {"app": {"publish": signal}}:
                return self.machine.publish(Draft.from_value(signal))[1]
            case {"app": {"auth": token}}:
                self.machine.authenticate(token, socket)
                return []
            case {"opened": True}:
                self.machine.opened(self.now, socket=socket)
                return []
            case {"receive": text}:
                return self.machine.receive(self.encoded(text), self.now, socket)
            case {"closed": code}:
                return self.machine.closed(code, self.now, socket=socket)
            case {"now": now}:
                assert now >= self.now
                self.now = now
                return self.machine.tick(now)
        raise AssertionError(step)


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("vector", CASES)
def test_the_machine_does_what_the_vector_says(vector, encoding):
    runner = Runner(vector.get("random", [0.5]), vector.get("features", ["goaway"]), encoding)
    for number, step in enumerate(vector["steps"]):
        expect = step.get("expect", {})
        events = [event_to_json(event) for event in runner.give(step)]
        sent = list(runner.sent())
        assert agrees(expect.get("events", []), events), (number, step, events)
        assert agrees(expect.get("send", []), sent), (number, step, sent)


def test_the_vectors_name_each_case_once():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) > 60
