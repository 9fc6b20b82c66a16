"""The app of `semantics`: what a socket sends is stored and sent back, once for each of the two backends."""

from __future__ import annotations

import attrs

from runtime import Actor, App, Namespace, Request, Response, WebSocket


class Keeper(Actor["Env"]):
    """Keeps the last message; the answer leaves when it is on the disk."""

    async def fetch(self, request: Request) -> Response:
        """Accept any WebSocket."""
        if request.web_socket is None:
            return Response.text("this is a WebSocket endpoint\n", 426)
        self.ctx.accept_web_socket(request.web_socket)
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Store it and send it back."""
        self.ctx.storage.put("value", message)
        ws.send(message)


class SqlKeeper(Keeper):
    """The same with a database of its own."""

    storage = "sql"


@attrs.frozen
class Env:
    """Both kinds."""

    keepers: Namespace[Keeper]
    sql_keepers: Namespace[SqlKeeper]


app = App(env=Env, routes={"/shared/{name}": Keeper, "/sql/{name}": SqlKeeper})
