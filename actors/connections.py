"""Connection managers: each holds a share of the sockets and speaks `signals.v1` with their clients."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

from actors.admission import Admission, bearer, subprotocol
from actors.fanout import Delivery
from actors.history import HistoryPage, Wish
from actors.moving import STEP_S, Departure
from actors.protocol.codes import CloseCode
from actors.protocol.messages import PING, PONG, Err, Hello, Hist, Ok, Pub, Sub, SubOk, Unsub, Welcome
from actors.protocol.server import FEATURES, Close, Remembered, Reply, ServerMachine, Step
from actors.reach import StreamReach
from actors.session import Connection
from actors.settings import MESSAGE_BYTES_MAX
from actors.shard_groups import ShardGroups
from actors.stream import Bounds, Granted, Joined, Wanted
from runtime import Actor, ActorError, AlarmInfo, Context, Request, Response, WebSocket

if TYPE_CHECKING:
    from actors.env import Env

SERVER = f"heliograph/{version('heliograph')}"
WAITING_FRAMES = 64  # of one connection, behind the one that is carried out
PAGE_BACKLOG_BYTES = 65_536  # a catch-up page is only sent to a socket with less than this on its way
DRAIN_S = 0.02
DRAIN_S_MAX = 0.5
_OPEN = 1  # WebSocket API: readyState


class ConnectionManager(Actor["Env"]):
    """A shard of the service's sockets.

    Subscriptions live in the sockets' attachments, so clients notice nothing of an eviction.
    """

    attachment_bytes: ClassVar[int] = 65_536
    message_bytes: ClassVar[int] = MESSAGE_BYTES_MAX  # limits.msg_bytes is checked here

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._limits = env.settings.limits
        self._shown = self._limits.to_json()
        self._heartbeat = env.settings.connections
        self._admission = Admission(self._limits, env.settings.auth)
        self._stream = StreamReach(ctx, env.broadcasters)
        self._groups = ShardGroups(ctx, self._stream)
        self._connections: dict[WebSocket, Connection] = {}
        self._departure: Departure | None = None
        ctx.set_web_socket_auto_response(PING, PONG)
        self._restore()

    def _restore(self) -> None:
        for ws in reversed(self.ctx.get_web_sockets()):
            state: Remembered | None = ws.attachment(Remembered)
            if state is not None and ws.ready_state == _OPEN:
                self._connections[ws] = Connection(ws, ServerMachine(self._limits, state))
        self._groups.restore(connection.machine.state for connection in self._connections.values())
        for connection in self._connections.values():
            for sub in connection.machine.state.subs.values():
                if sub.live:
                    self._groups.join(connection, sub.group)
            self._catch_up_soon(connection)

    # Connections.

    async def fetch(self, request: Request) -> Response:
        """Accept a WebSocket that offers `signals.v1.json` or nothing at all."""
        ws = request.web_socket
        if ws is None:
            return Response(426, b"this is a WebSocket endpoint\n", {"upgrade": "websocket", "connection": "upgrade"})
        if self._departure is not None:
            return Response(503, b"clients are being sent elsewhere\n", {"retry-after": "1"})
        chosen = subprotocol(request)
        if isinstance(chosen, Response):
            return chosen
        now = self.ctx.now()
        token = bearer(request)
        if token is not None and not self._admission.accepts(token):
            return Response(401, b"the bearer token is not accepted\n", {"www-authenticate": "Bearer"})
        user = self._admission.user(token)
        counted = self._admission.counts(user, request.peer)
        if counted and (wait_s := self._admission.too_many_handshakes(request.peer, now)):
            return Response(429, b"too many connections from this address\n", {"retry-after": str(wait_s)})
        self.ctx.accept_web_socket(ws)
        ws.limit_backlog(self._limits.backlog_bytes, self._limits.backlog_ms / 1000, CloseCode.SLOW_CONSUMER)
        state = Remembered(user=user, peer=request.peer, counted=counted)
        connection = self._connections[ws] = Connection(ws, ServerMachine(self._limits, state))
        connection.remember()
        self._wake_by(self.ctx.now() + self._limits.hello_ms / 1000)  # not a moment before its time is over
        return Response(101, headers={} if chosen is None else {"sec-websocket-protocol": chosen})

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Carry out a client's frame after all its earlier ones."""
        connection = self._connections.get(ws)
        if connection is None or connection.closed:
            return
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        if size > self._limits.msg_bytes:
            connection.close(1009, f"message of {size} bytes; at most {self._limits.msg_bytes}")
            return
        connection.waiting.append(message)
        if len(connection.waiting) > WAITING_FRAMES:
            connection.close(CloseCode.OVERLOADED, f"more than {WAITING_FRAMES} frames wait for an answer")
        elif not connection.busy:
            connection.busy = True
            if connection.machine.greeted:
                self.ctx.start_soon(self._work, connection)  # behind the frames that wait in the mailbox already
            else:
                await self._work(connection)

    async def _work(self, connection: Connection) -> None:
        """Carry out a connection's frames one after another; publications that wait together go out together."""
        machine = connection.machine
        publications: list[Pub] = []
        try:
            while connection.waiting:
                for message in machine.receive(connection.waiting.popleft()):
                    if connection.closed:
                        return
                    step = machine.step(message, self.ctx.now())
                    if isinstance(step, Pub):
                        publications.append(step)
                    else:
                        await self._publish(connection, publications)
                        await self._carry_out(connection, step)
                if not connection.waiting:
                    await self._publish(connection, publications)
        finally:
            connection.busy = False

    async def depart(self, code: CloseCode = CloseCode.SHUTDOWN) -> bool:
        """Send the next clients elsewhere, to be called every `STEP_S`; none is taken from the first call on.

        Returns: False when all are gone or closed.
        """
        if self._departure is None:
            clients = list(self._connections.values())
            self._departure = Departure(clients, code, self._heartbeat, self.env.settings.shards)
        return self._departure.step(self.ctx.now())

    async def rebalance(self) -> None:
        """Send every client elsewhere, and take clients again afterwards."""
        while await self.depart(CloseCode.REBALANCE):
            await self.ctx.sleep(STEP_S)
        self._departure = None

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        """A client is gone: so are its subscriptions."""
        connection = self._connections.pop(ws, None)
        if connection is not None:
            connection.closed = True
            connection.waiting.clear()
            self._drop_all(connection)

    async def alarm(self, info: AlarmInfo) -> None:
        """Close connections that said no hello in time, or nothing at all for too long."""
        now = self.ctx.now()
        following: float | None = None
        for connection in self._connections.values():
            if connection.closed:
                continue
            silent_s = now - connection.ws.last_received
            rest_s, close = connection.machine.patience(connection.open_s, silent_s, self._heartbeat.silent_s)
            # A busy one waits for us, perhaps for the answer to its hello.
            due = now + (1 if connection.busy else rest_s)
            if due <= now:
                connection.close(close.code, close.reason)
            else:
                following = due if following is None else min(following, due)
        if following is not None:
            self._wake_by(max(following, now + 1))

    def _wake_by(self, due: float) -> None:
        pending = self.ctx.storage.get_alarm()
        if pending is None or pending > due:
            self.ctx.storage.set_alarm(due)

    # Requests.

    async def _carry_out(self, connection: Connection, step: Step) -> None:
        match step:
            case Reply(text):
                connection.send(text)
            case Close(code, reason, text):
                if text is not None:
                    connection.send(text)
                connection.close(code, reason)
            case Hello():
                await self._hello(connection, step)
            case Sub():
                await self._subscribe(connection, step)
            case Unsub():
                sub = connection.machine.state.subs[step.s]
                connection.send(connection.machine.unsubscribed(step))
                connection.remember()
                self._groups.drop(connection, [sub])
            case Pub():
                await self._publish(connection, [step])
            case Hist():
                await self._read(connection, step)

    async def _hello(self, connection: Connection, hello: Hello) -> None:
        machine = connection.machine
        user = machine.state.user
        if not user and not self._admission.accepts(hello.token):
            await self._carry_out(connection, machine.unauthenticated(hello))
            return
        user = user or self._admission.user(hello.token)
        if self._too_many(connection, user):
            connection.close(CloseCode.TOO_MANY_CONNECTIONS, f"more than {self._limits.connections_per_user}")
            return
        plan = machine.wanted(hello)
        subs = [one for one in plan if isinstance(one, Sub)]
        wanted = _wanted(subs)
        self._stream.asking += 1
        try:
            greeted = await self._stream.ask(
                lambda stream: stream.hello(self._stream.shard, hello.resume, user, wanted)
            )
            answers = iter(self._granted(connection, subs, greeted.joined))
        except ActorError as error:
            connection.send(machine.unavailable(hello, str(error)).encode())
            connection.close(CloseCode.OVERLOADED, "the stream does not answer")
            return
        finally:
            self._stream.asking -= 1
        filled = [one if isinstance(one, Err) else next(answers) for one in plan]
        bounds = greeted.joined.bounds
        welcome = Welcome(
            id=hello.id,
            session=greeted.session,
            resume=greeted.resume,
            resumed=greeted.resumed,
            epoch=bounds.epoch,
            head=bounds.head,
            oldest=bounds.oldest,
            now=round(self.ctx.now() * 1000),
            ping_ms=self._heartbeat.ping_ms,
            dead_ms=self._heartbeat.dead_ms,
            limits=self._shown_limits(bounds),
            features=tuple(feature for feature in FEATURES if feature in hello.features),
            server=SERVER,
            subs=tuple(one if isinstance(one, Err) else one[0] for one in filled),
        )
        texts = [machine.welcomed(welcome, user)]
        for one in filled:
            if not isinstance(one, Err):
                texts += one[1]
        self._answer(connection, texts)

    async def _subscribe(self, connection: Connection, sub: Sub) -> None:
        self._stream.asking += 1
        try:
            wanted = _wanted([sub])
            joined = await self._stream.ask(lambda stream: stream.subscribe(self._stream.shard, wanted))
            (answer,) = self._granted(connection, [sub], joined)
        except ActorError as error:
            answer = connection.machine.unavailable(sub, str(error))
        finally:
            self._stream.asking -= 1
        if isinstance(answer, Err):
            connection.send(answer.encode())
        else:
            self._answer(connection, [answer[0].encode(), *answer[1]])

    def _granted(self, connection: Connection, subs: list[Sub], joined: Joined) -> list[tuple[SubOk, list[str]] | Err]:
        answers: list[tuple[SubOk, list[str]] | Err] = []
        for sub, granted in zip(subs, joined.answers, strict=True):
            if not isinstance(granted, Granted):
                answers.append(connection.machine.unavailable(sub, granted))
                continue
            # The shard hears of every frame of the group from now on, and the next one continues at the head.
            self._groups.add_subscriber(granted.group, joined.bounds.head)
            answer, texts = connection.machine.subscribed(
                sub,
                group=granted.group,
                since=granted.since,
                head=joined.bounds.head,
                recovered=granted.recovered,
                lost=granted.lost,
            )
            answers.append((answer, texts))
        return answers

    def _answer(self, connection: Connection, texts: list[str]) -> None:
        """Send what the machine made, and what is live at once; all of it in this turn."""
        if connection.closed:
            self._drop_all(connection)
            return
        connection.send("\n".join(texts + self._join(connection)))
        connection.remember()
        self._catch_up_soon(connection)

    async def _publish(self, connection: Connection, publications: list[Pub]) -> None:
        """Publish and acknowledge all of them, and empty the list."""
        if not publications:
            return
        taken, publications[:] = tuple(publications), ()
        # With an id of its own a repeat after a reset of the broadcaster is recognised.
        drafts = tuple(
            pub.draft if pub.draft.id is not None else pub.draft.with_id(self.ctx.token(12).hex()) for pub in taken
        )
        try:
            published = await self._stream.ask(lambda stream: stream.publish(drafts))
        except ActorError as error:
            answers = [connection.machine.unavailable(pub, str(error)).encode() for pub in taken]
        else:
            answers = [
                Ok(id=pub.id, o=receipt.offset, epoch=published.epoch, dup=receipt.dup).encode()
                for pub, receipt in zip(taken, published.receipts, strict=True)
            ]
        if not connection.closed:
            connection.send("\n".join(answers))

    async def _read(self, connection: Connection, hist: Hist) -> None:
        machine = connection.machine
        wish = Wish(filter=hist.filter.canonical, since=hist.since, limit=hist.limit, reverse=hist.reverse)
        try:
            page = await self._stream.ask(lambda stream: stream.read(wish))
        except ActorError as error:
            answer = machine.unavailable(hist, str(error)).encode()
        else:
            if isinstance(page, HistoryPage):
                answer = machine.read(hist, page.fields)
            else:
                answer = machine.unreadable(hist, page.error, page.message)
        if not connection.closed:
            connection.send(answer)

    def _too_many(self, connection: Connection, user: str) -> bool:
        state = connection.machine.state
        if not self._admission.counts(user, state.peer):
            return False
        same = sum(
            1
            for other in self._connections.values()
            if other.machine.state.session
            and not other.closed
            and (other.machine.state.user == user if user else other.machine.state.peer == state.peer)
        )
        return same >= self._limits.connections_per_user

    def _shown_limits(self, bounds: Bounds) -> dict[str, object]:
        stream = self.env.settings.stream
        kept = {"retention_signals": stream.retention_signals, "retention_ms": bounds.window_ms}
        return {**self._shown, **kept}

    # Catching up.

    def _catch_up_soon(self, connection: Connection) -> None:
        if connection.behind and not connection.catching_up:
            connection.catching_up = True
            self.ctx.start_soon(self._catch_up, connection)

    async def _catch_up(self, connection: Connection) -> None:
        """Send pages until every subscription has joined its group, never more than the socket takes."""
        wait_s = DRAIN_S
        try:
            while not connection.closed and (behind := connection.behind):
                if connection.ws.backlog_bytes >= PAGE_BACKLOG_BYTES:
                    await self.ctx.sleep(wait_s)
                    wait_s = min(2 * wait_s, DRAIN_S_MAX)
                    continue
                wait_s = DRAIN_S
                for s in behind:
                    await self._send_page(connection, s)
        finally:
            connection.catching_up = False

    async def _send_page(self, connection: Connection, s: str) -> None:
        sub = connection.machine.state.subs.get(s)
        if sub is None or sub.live:
            return
        try:
            page = await self._stream.page(sub.group, sub.cursor)
        except ActorError:
            connection.close(CloseCode.OVERLOADED, "the stream does not answer")
            return
        if connection.closed or connection.machine.state.subs.get(s) is not sub:
            return  # it was ended, and perhaps begun again, while the page was on its way
        if page is None:
            connection.close(CloseCode.INSUFFICIENT_STATE, "the group is not known any more")
            return
        texts = connection.machine.page(s, page.after, page.upto, page.signals) + self._join(connection)
        if texts:
            connection.send("\n".join(texts))
            connection.remember()
        elif page.complete:
            # At the broadcaster's cursor, but this shard's group is not: frames were missed.
            self._groups.heal_soon(self._groups[sub.group])
            await self.ctx.sleep(DRAIN_S)

    def _join(self, connection: Connection) -> list[str]:
        """Make members of the subscriptions that have reached their group's cursor."""
        texts: list[str] = []
        for s in connection.behind:
            sub = connection.machine.state.subs[s]
            group = self._groups[sub.group]
            if sub.cursor == group.cursor and not group.healing:
                texts.append(connection.machine.joined(s))
                self._groups.join(connection, sub.group)
        return texts

    # What the broadcaster says.

    async def deliver(self, deliveries: tuple[Delivery, ...]) -> None:
        """Take live frames; they are flushed behind the ones that wait in the mailbox already."""
        self._groups.take(deliveries)

    async def compare(self, groups: tuple[int, ...], cursors: tuple[int, ...]) -> None:
        """Where the broadcaster's groups stand, told when frames may have been lost on their way."""
        self._groups.compare(groups, cursors)

    async def forget(self) -> None:
        """The stream was brought back to an earlier state: no cursor and no group of a client means anything there."""
        for connection in self._connections.values():
            if not connection.closed:
                connection.close(CloseCode.INSUFFICIENT_STATE, "the stream was restored; subscribe again")
            self._drop_all(connection)
        self._connections.clear()

    def _drop_all(self, connection: Connection) -> None:
        machine = connection.machine
        subs, machine.state = machine.state.subs, machine.state.with_subs({})
        self._groups.drop(connection, subs.values())


def _wanted(subs: Iterable[Sub]) -> tuple[Wanted, ...]:
    return tuple(Wanted(sub.filter.canonical, sub.since, sub.on_gap) for sub in subs)
