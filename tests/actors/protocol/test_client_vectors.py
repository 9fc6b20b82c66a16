"""The client machine against the language-neutral vectors."""

import json
from pathlib import Path

import pytest

import actors.protocol
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.client import ClientMachine
from actors.protocol.cursor import Cursor, Last
from actors.signals import Draft

VECTORS = Path(actors.protocol.__file__).parent / "vectors"
CASES = [
    pytest.param(vector, id=f"{path.stem}: {vector['name']}")
    for path in (*sorted(VECTORS.glob("client-*.json")), VECTORS / "hand-over.json")
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


class Runner:
    def __init__(self, draws):
        self.machine = ClientMachine(Draws(draws))
        self.now = 0
        self.sockets = 1

    def give(self, step):
        events = self.answer(step)
        self.sockets += sum(isinstance(event, happened.Open) and event.socket > self.sockets for event in events)
        return events

    def sent(self):
        """The messages of each socket, with its number."""
        for socket in range(1, self.sockets + 1):
            for frame in self.machine.texts_to_send(socket):
                assert frame == '{"t":"ping"}' or "ping" not in frame
                for line in frame.split("\n"):
                    yield {**json.loads(line), "socket": socket}

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
            case {"app": {"unsubscribe": name}}:
                self.machine.unsubscribe(name)
                return []
            case {"app": {"publish": signal}}:
                return self.machine.publish(Draft.from_value(signal))[1]
            case {"opened": True}:
                self.machine.opened(self.now, socket=socket)
                return []
            case {"receive": text}:
                return self.machine.receive(text, self.now, socket)
            case {"closed": code}:
                return self.machine.closed(code, self.now, socket=socket)
            case {"now": now}:
                assert now >= self.now
                self.now = now
                return self.machine.tick(now)
        raise AssertionError(step)


@pytest.mark.parametrize("vector", CASES)
def test_the_machine_does_what_the_vector_says(vector):
    runner = Runner(vector.get("random", [0.5]))
    for number, step in enumerate(vector["steps"]):
        expect = step.get("expect", {})
        events = [event_to_json(event) for event in runner.give(step)]
        sent = list(runner.sent())
        assert agrees(expect.get("events", []), events), (number, step, events)
        assert agrees(expect.get("send", []), sent), (number, step, sent)


def test_the_vectors_name_each_case_once():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) > 60
