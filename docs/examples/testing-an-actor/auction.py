"""An auction: bids come in over WebSockets, and an alarm ends it."""

import attrs

from runtime import Actor, AlarmInfo, App, Namespace, Request, Response, WebSocket, durable


@attrs.frozen
class Lot:
    """What is kept of an auction."""

    bidder: str = ""
    cents: int = 0
    sold: bool = False


class Auction(Actor["Env"]):
    """One auction; whoever has bid most when the time is up gets it."""

    lot = durable(Lot)
    refused = 0  # bids that this instance has turned down: in memory only

    async def open(self, seconds: float) -> None:
        """Begin; it ends by itself."""
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def bid(self, bidder: str, cents: int) -> bool:
        """Take a bid, if it is the highest."""
        if self.ctx.storage.get_alarm() is None or cents <= self.lot.cents:
            self.refused += 1
            return False
        self.lot = Lot(bidder, cents)
        self.ctx.broadcast(f"{bidder} bids {cents}")
        return True

    async def alarm(self, info: AlarmInfo) -> None:
        """The time is up."""
        if not self.lot.bidder:
            raise LookupError("nobody has bid yet")
        self.lot = attrs.evolve(self.lot, sold=True)
        self.ctx.broadcast(f"sold to {self.lot.bidder}")

    async def fetch(self, request: Request) -> Response:
        """Let a bidder in."""
        if request.web_socket is None:
            return Response.json(attrs.asdict(self.lot))
        self.ctx.accept_web_socket(request.web_socket)
        request.web_socket.serialize_attachment(request.query_values()["as"])
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """A bidder bids."""
        if not await self.bid(str(ws.attachment(str)), int(message)):
            ws.send("too low, or too late")


@attrs.frozen
class Env:
    """The actors of this app."""

    auctions: Namespace[Auction]


app = App(env=Env, routes={"/auctions/{name}": Auction})
