"""The client machine against a model of the server: every matching signal once and in order, no false gap.

The server is the executable model of the delivery rules: paged catch-up with an atomic join, groups that may stay
silent, a log that is trimmed or brought back to an earlier state, changes in place with backfills, snapshots, what slow
readers get. It is random what happens: partial reads, dropped sockets with frames in flight, lost and repeated frames,
hand-overs between two sockets that are read at their own pace, an old socket that is replaced, tokens that are renewed
or refused meanwhile.
"""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol import messages as wire
from actors.protocol.client import ClientMachine
from actors.protocol.coverage import Coverage
from actors.protocol.cursor import Cursor, Last
from actors.protocol.encoding import JSON, MSGPACK
from actors.protocol.requests import Change
from actors.signals import Draft

MATCHES = {
    "even": lambda o: o % 2 == 0,
    "third": lambda o: o % 3 == 0,
    "all": lambda o: True,
    "rare": lambda o: o % 97 == 0,
}
FILTERS = {name: Filter.parse({"types": [name]}) for name in MATCHES}
NAMES = ["x", "y", "z"]
EPOCH = "E"
RENEWALS = {"good": None, "less": (403, "forbidden"), "bad": (401, "unauthenticated")}
WHICH = st.integers(0, 1)  # of the sockets, during a hand-over


def signals(kind, after, upto):
    matching = [o for o in range(after + 1, upto + 1) if MATCHES[kind](o)]
    return tuple(signal(o) for o in matching)


def signal(o):
    return Draft("t", entity(o), b"null").signal(o=o, ts=0, id=str(o))


def entity(o):
    return f"e{o % 5}"


def newest(kind, oldest, upto):
    """The offsets of a snapshot."""
    return sorted({entity(o): o for o in range(oldest, upto + 1) if MATCHES[kind](o)}.values())


def added(before, after, oldest, upto):
    """The offsets that a backfill may have."""
    return [o for o in range(oldest, upto + 1) if MATCHES[after](o) and not MATCHES[before](o)]


class Group:
    def __init__(self, kind, number, cursor):
        self.kind, self.number, self.cursor = kind, number, cursor
        self.members = set()


class Server:
    def __init__(self, features=("goaway", "mod", "snap", "ack")):
        self.head, self.oldest, self.groups, self.features, self.mods = 0, 1, {}, features, 0
        self.epochs = self.numbers = 0
        self.ended = {}  # where the log began at the end of each epoch

    @property
    def epoch(self):
        return f"{EPOCH}{self.epochs}"

    def restore(self, head):
        """The log is as it was, and has another epoch."""
        self.ended[self.epoch] = self.oldest
        self.head, self.oldest, self.groups = head, 1, {}
        self.epochs += 1

    def oldest_of(self, epoch):
        """Frames of the epoch before may still be on their way."""
        return self.ended.get(epoch, self.oldest)

    def group(self, kind):
        if kind not in self.groups:
            self.numbers += 1
            self.groups[kind] = Group(kind, self.numbers, self.head)
        return self.groups[kind]

    def flush(self, group, *, quiet=True):
        found = signals(group.kind, group.cursor, self.head)
        if self.head == group.cursor or (not found and quiet):
            return
        text = wire.Sig(g=group.number, a=group.cursor, b=self.head, signals=found).encode()
        group.cursor = self.head
        for socket in {socket for socket, _ in group.members}:
            socket.to_client.append(text)


class Socket:
    """The server's half of one connection."""

    def __init__(self, server):
        self.server, self.to_client, self.subs, self.welcomed, self.renewal = server, [], {}, False, None

    def receive(self, text):
        message = json.loads(text)
        if message["t"] == "hello":
            answers = [self.subscribe(sub) for sub in message.get("subs", ())]
            self.to_client.append(self.welcome(message["id"], answers).encode())
            self.welcomed = True
        elif message["t"] == "sub":
            self.leave(message["s"])  # one that came before it heard of a reset
            self.to_client.append(self.subscribe(message).encode())
        elif message["t"] in ("mod", "unsub") and message["s"] not in self.subs:
            assert self.server.epochs, "a reset came between"
            self.refuse(message["id"], 404, "unknown_sub")
        elif message["t"] == "mod":
            self.to_client.append(self.modify(message).encode())
        elif message["t"] == "ack":
            assert "ack" in self.server.features
            assert self.server.epochs or all(self.server.head >= offset for offset in message["c"].values())
        elif message["t"] == "auth":
            self.renewal = message["id"]
            if (refusal := RENEWALS[message["token"]]) is None:
                self.to_client.append(wire.Ok(id=message["id"], exp_ms=1).encode())
            else:
                self.refuse(message["id"], *refusal)
        elif message["t"] == "unsub":
            self.leave(message["s"])
            self.to_client.append(wire.Ok(id=message["id"]).encode())
        else:
            assert message["t"] == "ping"
        for name in list(self.subs):
            self.gap_if_trimmed(name)

    def refuse(self, request, code, slug):
        self.to_client.append(wire.Err(id=request, code=code, slug=slug, msg="").encode())

    def reset(self):
        """The server has forgotten every subscription."""
        self.end()
        if self.welcomed:
            self.to_client.append(wire.Reset(epoch=self.server.epoch, head=self.server.head, reason="").encode())

    def subscribe(self, sub):
        [kind], since, lost, recovered = sub["filter"]["types"], sub["from"], None, None
        cursor = (
            {"now": self.server.head, "snapshot": self.server.head, "earliest": self.server.oldest - 1}.get(since)
            if isinstance(since, str)
            else None
        )
        if cursor is None:
            asked = Cursor.parse(since["cursor"])
            cursor, skips = asked.offset, sub.get("on_gap", "fail") == "skip"
            recovered = asked.epoch == self.server.epoch and cursor >= self.server.oldest - 1
            if asked.epoch != self.server.epoch:
                cursor = self.server.oldest - 1 if skips else self.server.head
            elif not recovered:
                lost = wire.Lost(cursor, self.server.oldest - 1)
                if not skips:
                    cursor = self.server.head
        snap = newest(kind, self.server.oldest, cursor) if since == "snapshot" else None
        self.subs[sub["s"]] = {"kind": kind, "cursor": cursor, "live": False, "snap": snap, "slow": None}
        return wire.SubOk(
            id=sub.get("id"),
            s=sub["s"],
            g=self.server.group(kind).number,
            since=Cursor(self.server.epoch, cursor),
            head=self.server.head,
            recovered=recovered,
            lost=lost,
            filter="{}",
        )

    def modify(self, mod):
        assert "mod" in self.server.features
        sub = self.subs[mod["s"]]
        [kind] = mod["filter"]["types"]
        if sub["live"]:
            group = self.server.group(sub["kind"])
            self.server.flush(group, quiet=False)
            group.members.discard((self, mod["s"]))
            sub["cursor"] = group.cursor
        if "backfill" in mod:
            older = added(sub["kind"], kind, self.server.oldest, sub["cursor"])
            sub["snap"] = older[-mod["backfill"]["last"] :]
        self.server.mods += 1
        sub |= {"kind": kind, "live": False, "slow": None}
        return wire.SubOk(
            id=mod["id"],
            s=mod["s"],
            g=self.server.group(kind).number,
            since=Cursor(self.server.epoch, sub["cursor"]),
            head=self.server.head,
            filter="{}",
        )

    def welcome(self, request, answers):
        return wire.Welcome(
            id=request,
            session="s",
            resume="r",
            resumed=False,
            epoch=self.server.epoch,
            head=self.server.head,
            oldest=self.server.oldest,
            now=0,
            ping_ms=10**9,
            dead_ms=10**9,
            features=self.server.features,
            subs=tuple(answers),
        )

    def gap_if_trimmed(self, name):
        sub, end = self.subs[name], self.server.oldest - 1
        if not sub["live"] and sub["snap"] is None and sub["cursor"] < end:
            self.to_client.append(wire.Gap(s=name, a=sub["cursor"], b=end, reason="retention").encode())
            sub["cursor"] = end

    def pump(self, name, page):
        """One catch-up page; at the group's cursor the join, in the same turn."""
        sub = self.subs.get(name)
        if sub is None or sub["live"]:
            return
        group = self.server.group(sub["kind"])
        if sub["snap"] is not None:
            part, rest = sub["snap"][:page], sub["snap"][page:]
            sub["snap"] = rest or None
            found = tuple(signal(o) for o in part)
            self.to_client.append(wire.Snap(s=name, b=sub["cursor"], signals=found, more=bool(rest)).encode())
            return
        self.gap_if_trimmed(name)
        if sub["cursor"] > group.cursor:
            self.server.flush(group, quiet=False)
        if sub["slow"] is not None:
            self.catch_up_slowly(name, group)
            self.join_again(group)
            return
        if sub["cursor"] < group.cursor:
            upto = min(group.cursor, sub["cursor"] + page)
            found = signals(sub["kind"], sub["cursor"], upto)
            self.to_client.append(wire.Sig(s=name, a=sub["cursor"], b=upto, signals=found).encode())
            sub["cursor"] = upto
        if sub["cursor"] == group.cursor and not self.slow(group):
            sub["live"] = True
            group.members.add((self, name))
            self.to_client.append(wire.Live(s=name, g=group.number, b=sub["cursor"]).encode())

    def hold(self, policy):
        """The client reads too slowly: nothing more of any group, which it is not told."""
        for name, sub in self.subs.items():
            if sub["live"]:
                group = self.server.group(sub["kind"])
                group.members.discard((self, name))
                sub |= {"live": False, "slow": policy, "cursor": group.cursor}

    def slow(self, group):
        """The client counts the group's frames for these, so none may come before all of them can be members."""
        return [name for name, sub in self.subs.items() if sub["slow"] is not None and sub["kind"] == group.kind]

    def catch_up_slowly(self, name, group):
        """It reads again: a gap, or one conflated frame."""
        sub = self.subs[name]
        after, upto = sub["cursor"], group.cursor
        if after < upto and sub["slow"] == "skip":
            self.to_client.append(wire.Gap(s=name, a=after, b=upto, reason="slow").encode())
        elif after < upto:
            found = tuple(signal(o) for o in newest(sub["kind"], after + 1, upto))
            left_out = len(signals(sub["kind"], after, upto)) - len(found)
            self.to_client.append(wire.Sig(s=name, a=after, b=upto, signals=found, k=left_out).encode())
        sub["cursor"] = upto

    def join_again(self, group):
        """The group's frames as before, for all that read too slowly."""
        names = self.slow(group)
        if all(self.subs[name]["cursor"] == group.cursor for name in names):
            for name in names:
                self.subs[name] |= {"live": True, "slow": None}
                group.members.add((self, name))

    def leave(self, name):
        sub = self.subs.pop(name, None)
        if sub is not None:
            self.server.group(sub["kind"]).members.discard((self, name))

    def end(self):
        for name in list(self.subs):
            self.leave(name)


class Delivery(RuleBasedStateMachine):
    @initialize(
        wanted=st.lists(
            st.tuples(
                st.sampled_from(sorted(FILTERS)),
                st.sampled_from(["now", "earliest", "snapshot"]),
                st.sampled_from(["fail", "skip"]),
            ),
            min_size=3,
            max_size=3,
        ),
        head=st.integers(0, 20),
        moving=st.booleans(),
        features=st.sampled_from([("goaway", "mod", "snap", "ack"), ("goaway",)]),
        encoding=st.sampled_from([JSON, MSGPACK]),
    )
    def begin(self, wanted, head, moving, features, encoding):
        self.now, self.server, self.sockets, self.asked = 0, Server(features), {}, []
        self.server.head = head
        self.machine = ClientMachine(lambda: 0.5, encoding=encoding)
        self.delivered = {name: [] for name in NAMES}
        self.gaps = {name: [] for name in NAMES}
        self.start, self.end, self.detected, self.lossy = {}, {}, 0, False
        self.kinds = {name: [(0, kind)] for name, (kind, _, _) in zip(NAMES, wanted, strict=True)}
        self.snapped = {name: [] for name in NAMES}
        self.left_out = {name: set() for name in NAMES}
        self.changing = {}
        for name, (kind, since, on_gap) in zip(NAMES, wanted, strict=True):
            self.machine.subscribe(name, FILTERS[kind], since, on_gap)
        self.happen(self.machine.start(self.now))
        if moving:
            self.connect()
            for _ in range(5):
                self.go_on()
            self.send_away(0, 0)
            self.read(0, 10**6, joined=False)
            self.wait(1_000)
            assert self.asked

    def happen(self, events):
        for event in events:
            match event:
                case happened.Open(socket=number):
                    self.asked.append(number)
                    assert len(self.sockets) + len(self.asked) <= 2
                case happened.Close(socket=number):
                    if number in self.asked:
                        self.asked.remove(number)
                    else:
                        self.sockets.pop(number).end()
                case happened.Signals():
                    self.conflated(event)
                    self.delivered[event.s] += [signal.o for signal in event.signals]
                    self.end[event.s] = event.c
                case happened.Gap(reason="epoch"):
                    assert self.server.epochs
                    self.begin_again(event.s, event.c)
                case happened.Gap():
                    self.gaps[event.s].append((event.a, event.b))
                    self.end[event.s] = event.c
                case happened.Snap():
                    self.snap(event)
                case happened.Modified():
                    self.modified(event)
                    assert event.c == self.end[event.s]
                case happened.SubState(state="catchup") if event.since is not None:
                    self.start.setdefault(event.s, event.since.offset)
                    self.end.setdefault(event.s, event.since.offset)
                case happened.GapDetected():
                    self.detected += 1
                    assert self.lossy, "a false gap"
                case happened.SubState(state="failed") | happened.ModifyRefused():
                    raise AssertionError(event)
        for number, socket in self.sockets.items():
            for text in self.machine.texts_to_send(number):
                socket.receive(text)
        for name in self.start:
            self.check(name)

    def begin_again(self, name, cursor):
        """What came before the end of the epoch means nothing any more."""
        self.delivered[name], self.gaps[name], self.left_out[name] = [], [], set()
        self.kinds[name] = [(0, self.kinds[name][-1][1])]
        self.snapped[name].clear()
        if name in self.changing:
            kind, _, mods = self.changing[name]
            self.changing[name] = (kind, None, mods)
        for places in (self.start, self.end):
            places.pop(name, None)
            if cursor is not None:
                places[name] = cursor

    def snap(self, event):
        """A snapshot or backfill: what it may have, ascending, each once, whatever sockets it came on."""
        parts = self.snapped[event.s]
        for one in event.signals:
            assert not parts or one.o > parts[-1]
            parts.append(one.o)
        if event.s not in self.start and event.c is not None:
            self.start[event.s] = self.end[event.s] = event.c
            kind = self.kinds[event.s][-1][1]
            kinds = {kind, self.changing.get(event.s, (kind,))[0]}  # a change may have come before
            oldest = self.server.oldest_of(event.epoch)
            assert any({o for o in newest(k, 1, event.c) if o >= oldest} <= set(parts) for k in kinds)
            parts.clear()

    def modified(self, event):
        """From here on the new filter counts, and its backfill is there."""
        name = event.s
        kind, backfill, mods = self.changing.pop(name)
        before = self.kinds[name][-1][1]
        older = added(before, kind, 1, self.end[name])
        assert set(self.snapped[name]) <= set(older)
        if backfill is not None and "mod" in self.server.features and self.server.mods == mods + 1:
            whole = [o for o in older[-backfill:] if o >= self.server.oldest_of(event.epoch)]
            assert self.snapped[name][-len(whole) :] == whole or not whole
        self.snapped[name].clear()
        self.kinds[name].append((self.end[name], kind))

    def conflated(self, event):
        """What newer signals took the place of, when the frame says so."""
        if event.k:
            kind, after = self.kinds[event.s][-1][1], self.end[event.s]
            offsets = [one.o for one in event.signals]
            assert offsets == newest(kind, after + 1, event.c)
            self.left_out[event.s] |= {one.o for one in signals(kind, after, event.c)} - set(offsets)

    def check(self, name):
        """Delivered, or inside an explicit gap: exactly once, in order, nothing else."""
        missing = [pair for pair in self.gaps[name] if pair[1] > pair[0]]
        ends = [at for at, _ in self.kinds[name][1:]] + [self.end[name]]
        expected = [
            o
            for (at, kind), end in zip(self.kinds[name], ends, strict=True)
            for o in range(max(at, self.start[name]) + 1, end + 1)
            if MATCHES[kind](o) and o not in self.left_out[name] and not any(a < o <= b for a, b in missing)
        ]
        assert self.delivered[name] == expected

    def pick(self, which):
        return list(self.sockets.items())[which % len(self.sockets)]

    @rule(count=st.integers(1, 40))
    def publish(self, count):
        self.server.head += count

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(sorted(FILTERS)), last=st.sampled_from([None, 2, 1_000]))
    def modify(self, name, kind, last):
        if name not in self.changing:
            self.changing[name] = (kind, last, self.server.mods)
            backfill = None if last is None else Last(last)
            self.machine.modify(name, Change(filter=FILTERS[kind], backfill=backfill))
            self.happen([])

    @rule(quiet=st.booleans())
    def flush(self, quiet):
        for group in self.server.groups.values():
            self.server.flush(group, quiet=quiet)

    @precondition(lambda self: self.asked)
    @rule()
    def connect(self):
        number = self.asked.pop(0)
        self.sockets[number] = Socket(self.server)
        self.machine.opened(self.now, socket=number)
        self.happen([])

    @precondition(lambda self: self.asked)
    @rule()
    def refuse(self):
        self.happen(self.machine.closed(None, self.now, socket=self.asked.pop(0)))

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, names=st.sampled_from([NAMES, *([name] for name in NAMES)]), page=st.integers(1, 30))
    def pump(self, which, names, page):
        for name in names:
            self.pick(which)[1].pump(name, page)

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, policy=st.sampled_from(["latest", "skip"]))
    def read_too_slowly(self, which, policy):
        self.pick(which)[1].hold(policy)

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, count=st.sampled_from([1, 2, 5, 100]), joined=st.booleans())
    def read(self, which, count, joined):
        number, socket = self.pick(which)
        texts = socket.to_client[:count]
        del socket.to_client[:count]
        for text in ["\n".join(texts)] if texts and joined else texts:
            if number in self.sockets:
                events = self.machine.receive(self.machine.encoding.encode(text), self.now, number)
                self.happen(events)
                if '"err"' in text and not joined and "unknown_sub" not in text:
                    is_news = json.loads(text).get("id") in (None, socket.renewal)  # a newer token was not shown since
                    assert [type(event) for event in events] == [happened.Notice] * is_news

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, code=st.sampled_from([None, 1006, 4103, 4200]))
    def drop(self, which, code):
        number, socket = self.pick(which)
        socket.end()
        del self.sockets[number]
        self.happen(self.machine.closed(code, self.now, socket=number))

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, soonest=st.sampled_from([0, 500]))
    def send_away(self, which, soonest):
        goaway = wire.Goaway(reason="shutdown", after_ms=(soonest, 1_000), deadline_ms=10_000)
        _, socket = self.pick(which)
        if any("welcome" in text for text in socket.to_client) or socket.subs:  # it has answered hello
            socket.to_client.append(goaway.encode())

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, data=st.data())
    def lose_a_frame(self, which, data):
        _, socket = self.pick(which)
        if len(socket.to_client) > 1:
            place = data.draw(st.integers(0, len(socket.to_client) - 1))
            if json.loads(socket.to_client[place])["t"] == "sig":
                del socket.to_client[place]
                self.lossy = True

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, data=st.data())
    def repeat_a_frame(self, which, data):
        _, socket = self.pick(which)
        if socket.to_client:
            place = data.draw(st.integers(0, len(socket.to_client) - 1))
            text = socket.to_client[place]
            if json.loads(text)["t"] == "sig":
                socket.to_client.insert(place, text)

    @precondition(lambda self: self.sockets)
    @rule(which=WHICH, token=st.sampled_from(sorted(RENEWALS)), told=st.booleans())
    def renew(self, which, token, told):
        number, socket = self.pick(which)
        if told and socket.welcomed:
            expiring = wire.Err(code=401, slug="token_expiring", msg="", retry=True, retry_after_ms=0)
            socket.to_client.append(expiring.encode())
        self.machine.authenticate(token, number)
        self.happen([])

    @precondition(lambda self: len(self.sockets) == 2)
    @rule()
    def replace(self):
        """The server ends the older socket once the newer one has everything, whatever of it has arrived."""
        (number, old), (_, new) = self.sockets.items()
        if new.subs and all(sub["live"] for sub in new.subs.values()):
            old.end()
            del self.sockets[number]
            self.happen(self.machine.closed(4202, self.now, socket=number))

    @rule(share=st.sampled_from([0, 0.5, 1]))
    def restore(self, share):
        self.server.restore(int(self.server.head * share))
        for socket in self.sockets.values():
            socket.reset()

    @rule(kept=st.integers(0, 60))
    def trim(self, kept):
        self.server.oldest = max(self.server.oldest, self.server.head - kept + 1)

    @rule(ms=st.sampled_from([1, 300, 1_000, 20_000]))
    def wait(self, ms):
        self.now += ms
        self.happen(self.machine.tick(self.now))

    def go_on(self):
        """All that the server has to send arrives."""
        for group in self.server.groups.values():
            self.server.flush(group, quiet=False)
        for number, socket in list(self.sockets.items()):
            for name in NAMES:
                socket.pump(name, 500)
            if number in self.sockets and socket.to_client:
                self.read(list(self.sockets).index(number), 10**6, joined=False)

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        self.server.head += 97  # a lost last frame shows when another one follows
        for _ in range(400):
            if not self.sockets and not self.asked:
                self.wait(31_000)
            while self.asked:
                self.connect()
            self.go_on()
            if (
                len(self.sockets) == 1
                and not self.changing
                and all(self.machine.state_of(name) == "live" for name in NAMES)
            ):
                break
        assert len(self.sockets) == 1, "the hand-over has an end"
        for name in NAMES:
            assert self.machine.state_of(name) == "live"
            assert self.end[name] == self.server.head
            self.check(name)


def test_a_frame_lost_before_a_gap_message_is_inside_the_gap():
    def test_case(a):
        coverage = Coverage()
        coverage.accept(Cursor(EPOCH, 10), 1)
        return coverage.skip(wire.Gap(s="x", a=a, b=40, reason="slow")), coverage.cursor.offset

    assert test_case(10) == test_case(25) == test_case(3) == (10, 40)
    assert test_case(40) == (10, 40)


Delivery.TestCase.settings = settings(stateful_step_count=40)
TestDelivery = Delivery.TestCase
