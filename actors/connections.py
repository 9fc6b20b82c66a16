"""Connection managers: each holds a share of the sockets and speaks `signals.v1` with their clients."""

from __future__ import annotations

from contextlib import suppress
from heapq import nlargest
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

from actors.admission import Admission, counts, offered_encoding
from actors.analytics.reporter import Reporter
from actors.authentication import token_in_url
from actors.catching_up import CatchingUp
from actors.changing import Changing
from actors.deadlines import Deadlines
from actors.event_source import is_for_events
from actors.event_sources import EventSources
from actors.fanout import Delivery
from actors.history import HistoryPage, Wish
from actors.inspecting import ConnectionView, ConnectionWish, GroupView, Inspector, Opened, Places
from actors.moving import STEP_S, Departure
from actors.observing import ShardView, observed
from actors.parting import Parting
from actors.principal import NotAccepted
from actors.protocol.codes import CloseCode
from actors.protocol.encoding import JSON
from actors.protocol.messages import PONG, Err, Ok, Welcome
from actors.protocol.remembered import Remembered
from actors.protocol.requests import PING, Ack, Auth, Hello, Hist, Mod, Pub, Sub, Unsub
from actors.protocol.server import DEFLATE, FEATURES, Close, Reply, ServerMachine, Step
from actors.quota import Moment, Quota
from actors.reach import StreamReach
from actors.replacing import Replacing
from actors.session import Connection
from actors.shard_connections import ShardConnections
from actors.shard_groups import ShardGroups
from actors.stream import CONSOLE_STREAM, Bounds, Wanted, shard_number, stream_of
from actors.tracing import DeliveryTraces
from runtime import Actor, ActorError, AlarmInfo, Context, Request, Response, WebSocket

if TYPE_CHECKING:
    from actors.env import Env

SERVER = f"heliograph/{version('heliograph')}"
WAITING_FRAMES = 64  # of one connection, behind the one that is carried out
INFLATION = 10  # how much longer than limits.msg_bytes a compressed message may be once it is inflated (Centrifugo)
ABNORMAL = 1006  # RFC 6455: an end without a close frame
_OPEN = 1  # WebSocket API: readyState


class ConnectionManager(Actor["Env"]):
    """A shard of the service's sockets.

    Subscriptions live in the sockets' attachments, so clients notice nothing of an eviction.
    """

    attachment_bytes: ClassVar[int] = 65_536

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._limits = env.settings.limits
        self._shown = self._limits.to_json()
        self._heartbeat = env.settings.connections
        self._authenticator = env.authenticator
        self._admission = Admission(ctx, env)
        self._stream = StreamReach(ctx, env.broadcasters)
        shard = self._stream.shard
        self._groups = ShardGroups(ctx, self._stream, self._limits, DeliveryTraces(ctx, env.tracers))
        self._quota = Quota(shard, env.shards, env.settings)
        self._replacing = Replacing(ctx, shard, env.shards, env.settings.shards)
        self._catching_up = CatchingUp(ctx, self._stream, self._groups, self._replacing.live)
        self._deadlines = Deadlines(ctx, self._heartbeat, self._limits.hello_ms / 1000)
        self._connections = ShardConnections(
            ctx, self._limits, self._quota, self._replacing, self._groups, self._catching_up
        )
        self._parting = Parting(ctx, self._stream, self._groups, self._heartbeat, env.settings.all_shards)
        self._inspector = Inspector(ctx, shard_number(shard), self._connections, self._parting)
        self._changing = Changing(ctx, self._stream, self._groups, self._connections, self._catching_up)
        self._event_sources = EventSources(ctx, env, self._admission, self._stream, self._deadlines, self._connections)
        ctx.set_web_socket_auto_response(PING, PONG)
        self._restore()
        told = env.settings.console.has_analytics and stream_of(shard) != CONSOLE_STREAM
        self._reporter = Reporter(ctx, shard, self._groups.measures, env.analytics if told else None)
        self._groups.when_counted = self._reporter.soon

    def _restore(self) -> None:
        for ws in reversed(self.ctx.get_web_sockets()):
            state: Remembered | None = ws.attachment(Remembered)
            if state is not None and ws.ready_state == _OPEN:
                self._connections.restore(Connection(ws, ServerMachine(self._limits, state), self._groups.measures))
        self._groups.restore(connection.machine.state for connection in self._connections)
        for connection in self._connections:
            self._groups.tune(connection)
            for sub in connection.machine.state.subs.values():
                if sub.live:
                    self._groups.join(connection, sub.group)
            self._catching_up.soon(connection)

    # Connections.

    async def fetch(self, request: Request) -> Response:
        """Accept a WebSocket that offers a subprotocol of `signals.v1` or nothing at all, or an event source."""
        response = await self._accept(request)
        self._groups.measures.handshakes[response.status] += 1
        return response

    async def _accept(self, request: Request) -> Response:
        ws = request.web_socket
        if is_for_events(request):
            return await self._event_sources.open(request)
        if ws is None:
            return Response(426, b"this is a WebSocket endpoint\n", {"upgrade": "websocket", "connection": "upgrade"})
        chosen = offered_encoding(request)
        if isinstance(chosen, Response):
            return chosen
        if (name := token_in_url(request)) is not None:
            return Response.text(f"{name} in the URL would end in logs; the token belongs into hello\n", 400)
        principal = await self._admission.admit(request, self._connections)
        if isinstance(principal, Response):
            return principal
        counted, now = counts(principal, request.peer), self.ctx.now()
        self.ctx.accept_web_socket(ws, compress=self._heartbeat.compression)
        ws.limit_message(self._limits.msg_bytes, INFLATION * self._limits.msg_bytes)
        ws.limit_backlog(self._limits.backlog_bytes, self._limits.backlog_ms / 1000, CloseCode.SLOW_CONSUMER)
        state = Remembered(peer=request.peer, counted=counted, encoding=(chosen or JSON).name, opened=now)
        machine = ServerMachine(self._limits, state)
        if principal is not None:
            machine.authenticated(principal, now)
        connection = Connection(ws, machine, self._groups.measures)
        self._connections.add(connection)
        connection.remember()
        self._deadlines.opened(ws)
        return Response(101, headers={} if chosen is None else {"sec-websocket-protocol": chosen.subprotocol})

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Carry out a client's frame after all its earlier ones."""
        connection = self._connections.get(ws)
        if connection is None or connection.closed:
            return
        self._groups.measures.heard(message)
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
                    if connection.recorder is not None:
                        connection.recorder.heard(message)
                    self._groups.measures.received(message)
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
        if self._connections.departure is None:
            await self._groups.flush_held_back()
            clients = tuple(self._connections)
            self._connections.departure = Departure(clients, code, self._heartbeat, self.env.settings.all_shards)
        return self._connections.departure.step()

    async def rebalance(self) -> None:
        """Send every client elsewhere, and take clients again afterwards."""
        with suppress(ActorError):  # without the newest cursor a quiet subscription reads a little more there
            await self._stream.settle()
        while await self.depart(CloseCode.REBALANCE):
            await self.ctx.sleep(STEP_S)
        self._connections.departure = None

    async def lags(self, most: int = 100) -> dict[str, int]:
        """By session, how many offsets behind clients say they are: those that are the furthest behind."""
        told = ((c.machine.state.session, self._groups.lag(c)) for c in self._connections)
        return dict(nlargest(most, ((who, lag) for who, lag in told if lag is not None), key=lambda pair: pair[1]))

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        """A client is gone: so are its subscriptions."""
        self._groups.measures.closed(code)
        self._connections.forget(ws)

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        """A client broke the WebSocket protocol or the limit of a message, and was closed; or its connection broke."""
        self._groups.measures.closed(ABNORMAL)
        self._connections.forget(ws)

    async def settle(self) -> None:
        """The server goes down: tell the analytics what was counted."""
        await self._reporter.settle()

    async def observe(self) -> ShardView:
        """What an operator sees of this shard; of many connections it looks at some at a time."""
        return await observed(self.ctx, self._stream.shard, self._connections)

    async def find(self, wish: ConnectionWish) -> Places:
        """Where the connections are that an operator looks for."""
        return await self._inspector.find(wish)

    async def views(self, numbers: frozenset[int]) -> dict[int, ConnectionView]:
        """Connections by number."""
        return self._inspector.views(numbers)

    async def groups(self, head: int) -> tuple[GroupView, ...]:
        """The filter groups of the shard, whose stream is at `head`."""
        return await self._inspector.groups(head)

    async def look(self, session: str) -> Opened | None:
        """One connection, of which what is said is recorded from now on until 60 s after the last look."""
        return self._inspector.look(session)

    async def dismiss(self, session: str, code: int, reason: str) -> bool:
        """Close a connection; False when there is none."""
        return self._inspector.close(session, code, reason)

    async def connection_number(self, session: str) -> int | None:
        """Which one it is of the connections that can be made to fail; 0 if it cannot, None when there is none."""
        return self._inspector.connection_number(session)

    async def send_away(self, session: str) -> bool:
        """Let a client connect anew; False when there is none."""
        return self._inspector.send_away(session)

    async def alarm(self, info: AlarmInfo) -> None:
        """Something is due: a hello that did not come, the end of a token, a great age."""
        due = self._deadlines.check(self._connections)
        if due.old:
            self.ctx.start_soon(self._parting.send_away, due.old)
        if due.expired:
            await self._parting.close(due.expired)

    # Requests.

    async def _carry_out(self, connection: Connection, step: Step) -> None:  # noqa: C901 - a case for each kind of step
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
            case Mod():
                await self._changing.modify(connection, step)
            case Ack(offsets):
                self._groups.acknowledge(connection, offsets)
            case Auth():
                await self._renew(connection, step)
            case Unsub():
                sub = connection.machine.state.subs.get(step.s)
                connection.send(connection.machine.unsubscribed(step))
                connection.remember()
                if sub is not None:  # a reset came between
                    self._groups.drop(connection, [sub])
                self._groups.tune(connection)
            case Hist():
                await self._read(connection, step)
            case Pub():
                pass  # together with those beside it

    async def _hello(self, connection: Connection, hello: Hello) -> None:
        machine = connection.machine
        self._deadlines.greeted(connection)
        try:
            principal = machine.state.principal or await self._authenticator.principal(hello.token)
        except ActorError as error:
            self._unavailable(connection, hello, error)
            return
        if connection.closed:
            return
        if isinstance(principal, NotAccepted):
            await self._carry_out(connection, machine.unauthenticated(hello, principal.told))
            return
        machine.authenticated(principal, self.ctx.now())
        self._deadlines.wake_for(connection)
        try:
            free = await self._quota.take(connection.ws, machine.state)
        except ActorError as error:
            self._unavailable(connection, hello, error)
            return
        if not free:
            connection.close(CloseCode.TOO_MANY_CONNECTIONS, f"more than {self._limits.connections_per_user}")
            return
        plan = machine.wanted(hello)
        subs = [one for one in plan if isinstance(one, Sub)]
        wanted = tuple(map(Wanted.of, subs))
        self._stream.asking += 1
        try:
            greeted = await self._stream.ask(
                lambda stream: stream.hello(self._stream.shard, hello.resume, principal.user, wanted)
            )
            self._connections.enter(greeted.joined.bounds)
            answers = iter(self._connections.granted(connection, subs, greeted.joined))
        except ActorError as error:
            self._unavailable(connection, hello, error)
            return
        finally:
            self._stream.asking -= 1
        filled = [one if isinstance(one, Err) else next(answers) for one in plan]
        bounds = greeted.joined.bounds
        welcome = Welcome(
            id=hello.id,
            session=greeted.session.name,
            resume=greeted.resume,
            resumed=greeted.session.is_resumed,
            epoch=bounds.epoch,
            head=bounds.head,
            oldest=bounds.oldest,
            now=round(self.ctx.now() * 1000),
            ping_ms=self._heartbeat.ping_ms,
            dead_ms=self._heartbeat.dead_ms,
            limits=self._shown_limits(bounds),
            features=tuple(
                one for one in FEATURES if one in hello.features and (one != DEFLATE or connection.compresses)
            ),
            server=SERVER,
            subs=tuple(one if isinstance(one, Err) else one[0] for one in filled),
        )
        texts = [machine.welcomed(welcome, hello.client, greeted.session.number)]
        self._replacing.add(connection)
        if welcome.resumed:
            self._admission.resumed(machine.state.peer)
        self._groups.measures.welcomed(machine.state.sdk, asked=hello.resume is not None, resumed=welcome.resumed)
        self._groups.when_counted()
        for one in filled:
            if not isinstance(one, Err):
                texts += one[1]
        self._connections.answer(connection, texts)

    def _unavailable(self, connection: Connection, hello: Hello, error: ActorError) -> None:
        connection.send(connection.machine.unavailable(hello, str(error)).encode())
        connection.close(CloseCode.OVERLOADED, "the stream does not answer")

    async def _renew(self, connection: Connection, auth: Auth) -> None:
        machine = connection.machine
        try:
            found = await self._authenticator.principal(auth.token)
        except ActorError as error:
            connection.send(machine.unavailable(auth, str(error)).encode())
            return
        await self._carry_out(connection, machine.renewed(auth, found, self.ctx.now()))
        connection.remember()
        self._deadlines.wake_for(connection)

    async def _subscribe(self, connection: Connection, sub: Sub) -> None:
        resets = connection.resets
        self._stream.asking += 1
        try:
            wanted = (Wanted.of(sub),)
            joined = await self._stream.ask(lambda stream: stream.subscribe(self._stream.shard, wanted))
            self._connections.enter(joined.bounds)
            if connection.resets != resets:
                return  # forgotten with all others
            if (earlier := connection.machine.state.subs.get(sub.s)) is not None:
                self._groups.drop(connection, [earlier])
            (answer,) = self._connections.granted(connection, [sub], joined)
        except ActorError as error:
            answer = connection.machine.unavailable(sub, str(error))
        finally:
            self._stream.asking -= 1
        if isinstance(answer, Err):
            connection.send(answer.encode())
        else:
            self._connections.answer(connection, [answer[0].encode(), *answer[1]])

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

    def _shown_limits(self, bounds: Bounds) -> dict[str, object]:
        kept = {"retention_signals": self.env.settings.stream.retention_signals, "retention_ms": bounds.window_ms}
        return {**self._shown, **kept}

    # What the broadcaster says.

    async def deliver(self, deliveries: tuple[Delivery, ...], numbered_at: float, traced: tuple[int, ...] = ()) -> None:
        """Take live frames; they are flushed behind the ones that wait in the mailbox already."""
        self._groups.take(deliveries, numbered_at, traced)

    async def compare(self, groups: tuple[int, ...], cursors: tuple[int, ...]) -> None:
        """Where the broadcaster's groups stand, told when frames may have been lost on their way."""
        self._groups.compare(groups, cursors)

    async def enter(self, bounds: Bounds) -> None:
        """The stream was brought back to an earlier state and is of another epoch now."""
        self._connections.enter(bounds)

    # What other shards say.

    async def quota_used(self, holder: str, before: Moment) -> int:
        """How many connections somebody has here that came before this moment."""
        return self._quota.count(holder, before)

    async def replaced(self, session: str, number: int) -> None:
        """The socket of this number has everything that the older ones of its session had, which end."""
        self._replacing.end(session, number)
