"""Random lives of a client: what an application, a network and a mostly sane server do to its machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any

import attrs

from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol import messagepack
from actors.protocol.client import ClientMachine
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.encoding import JSON, MSGPACK, Encoding
from actors.protocol.requests import Change
from actors.signals import Draft

NAMES = ("x", "y", "z")
CODES = (None, 1000, 1001, 1006, 1009, 1011, 4004, 4101, 4103, 4177, 4200, 4201, 4202)
WRONG = (None, True, -1, 1.5, "", "?", [], {}, [1], "E:1", 0)
NOT_MESSAGEPACK = (b"\xc1", b"\xd4\x01\x00", b"\x81\x01\x02", b"\x92\x01", b"\xa2\xc3\x28", b"\xcb\x7f\xf8" + bytes(6))
STEPS_MAX = 60

Step = dict[str, Any]
Answer = dict[str, Any]


@attrs.define
class Peer:
    """What the server's end of one socket knows."""

    opened: bool = False
    welcomed: bool = False
    requests: list[dict[str, Any]] = attrs.Factory(list)  # unanswered, hello first
    subs: dict[str, dict[str, int]] = attrs.Factory(dict)  # name to group and cursor


@attrs.define(eq=False)
class Life:
    """One case: steps are drawn, given to the Python machine, and kept with what it answered."""

    random: Random
    encoding: Encoding = JSON
    steps: list[Step] = attrs.Factory(list)
    answers: list[Answer] = attrs.Factory(list)
    draws: list[float] = attrs.Factory(list)
    epoch: str = "E"
    now: int = 0
    ids: int = 0
    _peers: dict[int, Peer] = attrs.Factory(dict)
    _names: set[str] = attrs.Factory(set)
    _changing: set[str] = attrs.Factory(set)
    _resting: set[str] = attrs.Factory(set)
    _machine: ClientMachine = attrs.field(init=False)
    _sockets: int = 1

    def __attrs_post_init__(self) -> None:
        self.draws = [round(self.random.random(), 3) for _ in range(20)]
        left = list(self.draws)
        self._machine = ClientMachine(lambda: left.pop(0) if len(left) > 1 else left[0], encoding=self.encoding)

    def live(self) -> None:
        """Draw the whole case."""
        self._subscribe()
        self.give({"app": "start"})
        acts: list[tuple[float, Callable[[], None]]] = [
            (20, self._speak),
            (8, self._open),
            (3, self._pass_time),
            (1, self._subscribe),
            (0.7, self._publish),
            (1, self._modify),
            (0.5, self._unsubscribe),
            (0.4, self._renew),
            (0.5, self._rest),
            (0.4, self._close),
            (0.02, lambda: self.give({"app": "stop"})),
        ]
        weights = [weight for weight, _ in acts]
        for _ in range(self.random.randrange(8, STEPS_MAX)):
            self.random.choices(acts, weights)[0][1]()

    def give(self, step: Step) -> None:
        """One input, and what the machine makes of it."""
        socket = step.get("socket")
        machine = self._machine
        events: list[happened.Event] = []
        match step:
            case {"app": "start"}:
                events = machine.start(self.now)
            case {"app": "stop"}:
                events = machine.stop()
            case {"app": {"subscribe": wanted}}:
                since, min_ms, on_slow = _since(wanted["from"]), wanted.get("min_ms", 0), wanted.get("on_slow", "close")
                machine.subscribe(wanted["s"], Filter.parse({}), since, wanted["on_gap"], min_ms, on_slow)
            case {"app": {"modify": {"s": name, **change}}}:
                machine.modify(name, _change(change))
            case {"app": {"unsubscribe": name}}:
                machine.unsubscribe(name)
            case {"app": {"pause": name}}:
                machine.rest(name)
            case {"app": {"unpause": name}}:
                machine.go_on(name)
            case {"app": {"publish": signal}}:
                events = machine.publish(Draft.from_value(signal))[1]
            case {"app": {"auth": token}}:
                machine.authenticate(token, socket)
            case {"opened": True}:
                machine.opened(self.now, socket=socket)
            case {"receive": text}:
                events = machine.receive(text, self.now, socket)
            case {"binary": text}:
                events = machine.receive(base64.b64decode(text), self.now, socket)
            case {"closed": code}:
                events = machine.closed(code, self.now, socket=socket)
            case {"now": now}:
                self.now = now
                events = machine.tick(now)
        for event in events:
            match event:
                case happened.Open(socket=number):
                    self._peers[number] = Peer()
                    self._sockets = max(self._sockets, number)
                case happened.Close(socket=number):
                    self._peers.pop(number, None)
                case happened.SubState(s=name, state="failed"):
                    self._forget(name)
                case happened.Modified(s=name) | happened.ModifyRefused(s=name):
                    self._changing.discard(name)
                case _:
                    pass
        sent = [[json.loads(text) for text in machine.texts_to_send(n + 1)] for n in range(self._sockets)]
        for number, messages in enumerate(sent, 1):
            if number in self._peers:
                self._peers[number].requests += [message for message in messages if "id" in message]
        self.steps.append(step)
        answer = {"events": [shown(event) for event in events], "sent": sent, "deadline": machine.next_deadline_ms}
        self.answers.append(answer)

    # --- the application and the network ---------------------------------------------------------------------

    def _subscribe(self) -> None:
        name = self.random.choice(NAMES)
        if name in self._names:
            return
        self._names.add(name)
        places = ["now", "earliest", "snapshot", {"last": 3}, {"ago_ms": 9}, {"cursor": "E:5"}, {"cursor": "D:5"}]
        wanted = {"s": name, "filter": {}, "from": self.random.choice(places)}
        wanted |= {"on_gap": self.random.choice(["fail", "skip"])}
        if self.random.random() < 0.2:
            wanted["min_ms"] = 500
        if self.random.random() < 0.2:
            wanted["on_slow"] = self.random.choice(["close", "latest", "skip"])
        self.give({"app": {"subscribe": wanted}})

    def _modify(self) -> None:
        if names := sorted(self._names - self._changing):
            name = self.random.choice(names)
            self._changing.add(name)
            change: dict[str, Any] = {"s": name}
            if self.random.random() < 0.7:
                change["filter"] = {"types": [self.random.choice(["a", "b"])]}
            if self.random.random() < 0.3:
                change["min_ms"] = self.random.choice([0, 500])
            if self.random.random() < 0.2:
                change["on_slow"] = self.random.choice(["close", "latest", "skip"])
            if self.random.random() < 0.4:
                change["backfill"] = self.random.choice([{"last": 3}, {"ago_ms": 1_000}])
            self.give({"app": {"modify": change}})

    def _unsubscribe(self) -> None:
        if self._names:
            name = self.random.choice(sorted(self._names))
            self._forget(name)
            self.give({"app": {"unsubscribe": name}})

    def _rest(self) -> None:
        """Let a subscription rest, or go on after that."""
        if self._names:
            name = self.random.choice(sorted(self._names))
            self.give({"app": {"unpause" if name in self._resting else "pause": name}})
            self._resting ^= {name}

    def _forget(self, name: str) -> None:
        for names in (self._names, self._changing, self._resting):
            names.discard(name)

    def _renew(self) -> None:
        """A newer token, for a socket that may be none any more."""
        step: Step = {"app": {"auth": f"token-{self.ids}"}}
        if self._peers and self.random.random() < 0.8:
            step["socket"] = self.random.choice(sorted(self._peers))
        self.give(step)

    def _publish(self) -> None:
        self.ids += 1
        data = "d" * (20_000 if self.random.random() < 0.05 else self.ids)
        self.give({"app": {"publish": {"type": "t", "entity": "e", "data": data, "id": f"k{self.ids}"}}})

    def _open(self) -> None:
        for number in [number for number, peer in self._peers.items() if not peer.opened]:
            self._peers[number].opened = True
            self.give({"opened": True, "socket": number})

    def _close(self) -> None:
        if self._peers:
            number = self.random.choice(sorted(self._peers))
            del self._peers[number]
            self.give({"closed": self.random.choice(CODES), "socket": number})

    def _pass_time(self) -> None:
        due = self._machine.next_deadline_ms
        step = self.random.choice([1, 1, 100, 100, 1_000, 5_000, 40_000])
        later = self.now + step if due is None or self.random.random() < 0.6 else max(self.now, int(due) + 1)
        self.give({"now": later})

    # --- the server ------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        ready = sorted(number for number, peer in self._peers.items() if peer.opened)
        if not ready:
            return
        number = self.random.choice(ready)
        messages = [self._message(self._peers[number]) for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        step: Step = {**self._frame([self._spoilt(message) for message in messages]), "socket": number}
        if self.random.random() < 0.1:
            del step["socket"]
        self.give(step)

    def _frame(self, texts: list[str]) -> Step:
        """Texts, of which one may be no JSON, as a frame; and now and then one of the other kind."""
        if (self.encoding is MSGPACK) == (self.random.random() < 0.002):
            return {"receive": "\n".join(texts)}
        return {"binary": base64.b64encode(b"".join(map(self._packed, texts))).decode()}

    def _packed(self, text: str) -> bytes:
        try:
            return messagepack.dump(json.loads(text))
        except ValueError:
            return self.random.choice(NOT_MESSAGEPACK)

    def _spoilt(self, message: dict[str, Any]) -> str:
        chance = self.random.random()
        if chance < 0.005 and message:
            message = {**message, self.random.choice(sorted(message)): self.random.choice(WRONG)}
        elif chance < 0.01 and message:
            message = {key: value for key, value in message.items() if key != self.random.choice(sorted(message))}
        elif chance < 0.012:
            return json.dumps(message)[:-2]
        return json.dumps(message)

    def _message(self, peer: Peer) -> dict[str, Any]:
        if peer.requests and self.random.random() < 0.8:
            return self._answer(peer, peer.requests.pop(0))
        kinds = (
            ["sig"] * 10
            + ["live"] * 6
            + ["snap"] * 4
            + ["gap", "unsubbed", "goaway", "goaway", "pong", "err", "new", "subok"]
        )
        if self.random.random() < 0.02:
            return self._reset(peer)
        return self._unasked(peer, self.random.choice(kinds))

    def _answer(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        refusal = {"t": "err", "id": request["id"], "code": 429, "slug": "rate_limited", "msg": "later"}
        retry = {"retry": self.random.random() < 0.7, "retry_after_ms": self.random.choice([None, 50, 3_000])}
        match request["t"]:
            case "hello":
                peer.welcomed = True
                return self._welcome(peer, request)
            case "auth" if self.random.random() < 0.3:
                return {
                    "t": "err",
                    "id": request["id"],
                    "code": 403,
                    "slug": "forbidden",
                    "msg": "less",
                    "retry": False,
                }
            case _ if self.random.random() < 0.1:
                return refusal | retry
            case "auth":
                return {"t": "ok", "id": request["id"], "exp_ms": 1_790_000_900_000}
            case "sub":
                return {"id": request["id"], **self._subok(peer, request)}
            case "mod":
                return {"id": request["id"], **self._modified(peer, request["s"])}
            case "pub":
                place = {"o": self.random.randrange(1, 50), "epoch": self.epoch}
                return {"t": "ok", "id": request["id"], "dup": self.random.random() < 0.1} | place
            case _:
                return {"t": "ok", "id": request["id"]}

    def _welcome(self, peer: Peer, hello: dict[str, Any]) -> dict[str, Any]:
        subs = [self._subok(peer, sub) for sub in hello.get("subs", ())]
        if subs and self.random.random() < 0.05:
            subs[0] = {"t": "err", "s": subs[0]["s"], "code": 422, "retry": self.random.random() < 0.5}
        if subs and self.random.random() < 0.01:
            subs.pop()
        bounds = {"epoch": self.epoch, "head": 50, "oldest": 1, "now": 1, "ping_ms": 25_000, "dead_ms": 10_000}
        features = self.random.choice(
            [
                ["goaway"],
                ["goaway", "mod", "snap"],
                ["goaway", "mod", "snap", "latest", "ack"],
                ["mod", "ack"],
                [],
                None,
            ]
        )
        session = {"session": f"s{self.ids}", "resume": f"r{len(self.steps)}", "resumed": self.random.random() < 0.5}
        rest = {"limits": self.random.choice([{}, {"msg_bytes": 16_384}]), "features": features, "server": "x"}
        return {"t": "welcome", "id": hello["id"], "subs": subs} | bounds | session | rest

    def _subok(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        asked = request["from"]
        name, group = request["s"], self.random.randrange(1, 4)
        same = isinstance(asked, dict) and asked.get("cursor", "").startswith(f"{self.epoch}:")
        c = int(asked["cursor"].split(":")[1]) if same else self.random.randrange(20)
        recovered: bool | None = True if same else None
        lost = None
        if isinstance(asked, dict) and "cursor" in asked and (not same or self.random.random() < 0.15):
            recovered = False
            if same and self.random.random() < 0.7:
                lost = {"a": c, "b": c + 5}
                c += self.random.choice([0, 5])
        peer.subs[name] = {"g": group, "c": c}
        accepted = {"t": "subok", "s": name, "g": group, "from": f"{self.epoch}:{c}", "head": 50, "filter": {}}
        return accepted | {"recovered": recovered, "lost": lost}

    def _modified(self, peer: Peer, name: str) -> dict[str, Any]:
        sub = peer.subs.setdefault(name, {"g": 1, "c": 0})
        sub["g"] = self.random.randrange(1, 4)
        c = sub["c"] + (1 if self.random.random() < 0.05 else 0)
        return {"t": "subok", "s": name, "g": sub["g"], "from": f"{self.epoch}:{c}", "head": 50, "filter": {}}

    def _reset(self, peer: Peer) -> dict[str, Any]:
        self.epoch = self.random.choice("EFG")
        return {"t": "reset", "epoch": self.epoch, "head": 3, "reason": "restored"}

    def _unasked(self, peer: Peer, kind: str) -> dict[str, Any]:
        name = self.random.choice(sorted(peer.subs) or NAMES)
        sub = peer.subs.setdefault(name, {"g": 1, "c": 0})
        match kind:
            case "sig":
                return self._sig(name, sub)
            case "live":
                b = sub["c"] + (3 if self.random.random() < 0.05 else 0)
                return {"t": "live", "s": name, "g": sub["g"], "b": b}
            case "gap":
                a, sub["c"] = sub["c"], sub["c"] + self.random.randrange(-1, 5)
                return {"t": "gap", "s": name, "a": max(0, a), "b": max(0, sub["c"]), "reason": "slow"}
            case "snap":
                return self._snap(name, sub)
            case "unsubbed":
                return {"t": "unsubbed", "s": name, "code": 403, "reason": "no more"}
            case "goaway":
                window = self.random.choice([[0, 0], [0, 100], [500, 4_000]])
                url = self.random.choice([None, None, "ws://other.test/v1/stream"])
                return {"t": "goaway", "reason": "shutdown", "after_ms": window, "deadline_ms": 5_000, "url": url}
            case "err":
                return {"t": "err", "code": 503, "slug": "draining", "msg": "soon"}
            case "subok":
                return {"id": self.random.randrange(1, 6), **self._subok(peer, {"s": name, "from": "now"})}
            case _:
                return {"t": kind, "anything": [1]}

    def _sig(self, name: str, sub: dict[str, int]) -> dict[str, Any]:
        chance = self.random.random()
        a = max(0, sub["c"] + (-2 if chance < 0.1 else 2 if chance < 0.14 else 0))
        b = a + self.random.randrange(5)
        sub["c"] = max(sub["c"], b)
        offsets = [o for o in range(a + 1, b + 1) if self.random.random() < 0.6]
        signals = [{"o": o, "id": f"i{o}", "type": "t", "entity": "e", "ts": 1, "data": None} for o in offsets]
        to: dict[str, Any] = {"s": name} if self.random.random() < 0.5 else {"g": sub["g"]}
        if self.random.random() < 0.1:
            to["k"] = 2
        return {"t": "sig", "a": a, "b": b, "d": signals} | to

    def _snap(self, name: str, sub: dict[str, int]) -> dict[str, Any]:
        offsets = sorted({self.random.randrange(1, 20) for _ in range(3)})
        signals = [{"o": o, "id": f"i{o}", "type": "t", "entity": "e", "ts": 1, "data": None} for o in offsets]
        b = sub["c"] + self.random.choice([0, 0, 0, 2])
        more = self.random.random() < 0.4
        sub["c"] = sub["c"] if more else b
        return {"t": "snap", "s": name, "b": b, "d": signals, "more": more}


def shown(event: happened.Event) -> dict[str, Any]:
    """An event in the form of the vectors; words for people are left out."""
    match event:
        case happened.Open(socket=socket, url=url):
            return {"e": "open", "socket": socket, "url": url}
        case happened.Close(code=code, socket=socket):
            return {"e": "close", "code": int(code), "socket": socket}
        case happened.ClientState():
            fields = attrs.asdict(event, filter=lambda field, _: field.name != "reason")
            delay = None if event.delay_ms is None else int(event.delay_ms)
            return {"e": "state", **fields, "delay_ms": delay}
        case happened.SubState():
            return {"e": "sub", "s": event.s, "state": event.state, "code": event.code}
        case happened.Signals():
            offsets = [signal.o for signal in event.signals]
            return {"e": "signals", "s": event.s, "o": offsets, "c": event.c, "epoch": event.epoch, "k": event.k}
        case happened.Snap():
            offsets = [signal.o for signal in event.signals]
            return {"e": "snap", "s": event.s, "o": offsets, "c": event.c, "epoch": event.epoch}
        case happened.Modified():
            return {"e": "modified", **attrs.asdict(event)}
        case happened.ModifyRefused():
            return {"e": "modify-refused", **attrs.asdict(event)}
        case happened.Gap():
            return {"e": "gap", **attrs.asdict(event)}
        case happened.GapDetected():
            return {"e": "gap-detected", **attrs.asdict(event)}
        case happened.Published():
            return {"e": "published", "id": event.id, "o": event.o, "epoch": event.epoch, "dup": event.dup}
        case happened.PublishRefused():
            return {"e": "refused", "id": event.id, "code": event.code, "slug": event.slug}
        case happened.Notice():
            return {"e": "notice", "code": event.code, "slug": event.slug}


def _since(value: Any) -> Since:
    match value:
        case {"cursor": text}:
            return Cursor.parse(text)
        case {"last": count}:
            return Last(count)
        case {"ago_ms": ms}:
            return Ago(ms)
        case _:
            return value


def _change(wanted: dict[str, Any]) -> Change:
    filter_, backfill = wanted.get("filter"), wanted.get("backfill")
    return Change(
        filter=None if filter_ is None else Filter.parse(filter_),
        min_ms=wanted.get("min_ms"),
        on_slow=wanted.get("on_slow"),
        backfill=None if backfill is None else _since(backfill),
    )
