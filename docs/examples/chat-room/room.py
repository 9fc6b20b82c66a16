"""A chat room for every name, with the last hundred lines and who is there: `heliograph serve room:app`.

A room is one actor. Its lines are in a SQL database of its own, its guests are sockets that stay open while it sleeps.
"""

import json

import attrs

from runtime import Actor, App, Context, Namespace, Request, Response, WebSocket

LINES = 100
TEXT_MAX = 2_000  # characters of one line


@attrs.frozen
class Guest:
    """What a socket is remembered by, also over a restart of the server."""

    name: str


class Room(Actor["Env"]):
    """One room."""

    storage = "sql"

    def __init__(self, ctx: Context, env: "Env") -> None:
        super().__init__(ctx, env)
        ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY, at REAL, name TEXT, text TEXT)")
        ctx.set_web_socket_auto_response("ping", "pong")  # answered without waking the room

    async def fetch(self, request: Request) -> Response:
        """A guest who comes in, or anybody who wants to see who is there."""
        ws = request.web_socket
        if ws is None:
            return Response.json({"guests": self._guests()})
        name = request.query_values().get("name", "")
        if not 1 <= len(name) <= 40:
            return Response.text("say who you are: ?name=… of 1 to 40 characters\n", 400)
        self.ctx.accept_web_socket(ws)
        ws.serialize_attachment(Guest(name))
        newest = self.ctx.storage.sql.exec("SELECT at, name, text FROM lines ORDER BY id DESC LIMIT ?", LINES)
        ws.send(json.dumps({"lines": newest.to_array()[::-1]}))
        self._tell_who_is_there()
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """A line: stored before anybody sees it."""
        line = {"at": self.ctx.now(), "name": ws.attachment(Guest).name, "text": str(message)[:TEXT_MAX]}
        sql = self.ctx.storage.sql
        sql.exec("INSERT INTO lines (at, name, text) VALUES (?, ?, ?)", *line.values())
        sql.exec("DELETE FROM lines WHERE id <= (SELECT max(id) FROM lines) - ?", LINES)
        self.ctx.broadcast(json.dumps({"lines": [line]}))

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        """Somebody leaves."""
        self._tell_who_is_there(but=ws)

    def _guests(self, but: WebSocket | None = None) -> list[str]:
        return sorted({ws.attachment(Guest).name for ws in self.ctx.get_web_sockets() if ws is not but})

    def _tell_who_is_there(self, but: WebSocket | None = None) -> None:
        told = json.dumps({"guests": self._guests(but)})
        for ws in self.ctx.get_web_sockets():
            if ws is not but:
                ws.send(told)


@attrs.frozen
class Env:
    """What there is: rooms."""

    rooms: Namespace[Room]


app = App(env=Env, routes={"/rooms/{name}": Room})
