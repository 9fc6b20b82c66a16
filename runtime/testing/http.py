"""One HTTP exchange over a stream, as a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import attrs
import h11
import trio

from runtime.actor.http import Response


async def write_request(
    stream: trio.abc.Stream, method: str, target: str, host: str, body: bytes, headers: Mapping[str, str]
) -> None:
    """Send a request and ask for the connection to be closed after the answer."""
    client = h11.Connection(h11.CLIENT)
    fields = {"host": host, "connection": "close", "content-length": str(len(body)), **headers}
    data = client.send(h11.Request(method=method, target=target, headers=list(fields.items())))
    await stream.send_all(data + client.send(h11.Data(data=body)) + client.send(h11.EndOfMessage()))


async def read_response(stream: trio.abc.Stream, method: str) -> Response:
    """Read one response to its end.

    Raises:
        ConnectionError: the connection ended before.
    """
    response = await read_head(stream, method)
    assert response.stream is not None
    return attrs.evolve(response, body=b"".join([chunk async for chunk in response.stream]), stream=None)


async def read_head(stream: trio.abc.Stream, method: str) -> Response:
    """Read the head of a response, whose `stream` reads the rest.

    Raises:
        ConnectionError: the connection ended before; of the stream too.
    """
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    head = await _next_event(client, stream)
    assert isinstance(head, h11.Response)
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Response(head.status_code, headers=headers, stream=_chunks(client, stream))


async def _chunks(client: h11.Connection, stream: trio.abc.Stream) -> AsyncGenerator[bytes, None]:
    while isinstance(event := await _next_event(client, stream), h11.Data):
        yield bytes(event.data)


async def _next_event(client: h11.Connection, stream: trio.abc.Stream) -> h11.Response | h11.Data | h11.EndOfMessage:
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some()
            if not data and client.their_state is h11.SEND_RESPONSE:
                raise ConnectionError("the server closed the connection before its answer was complete")
            try:
                client.receive_data(bytes(data))
                if not data:
                    event = client.next_event()
            except h11.RemoteProtocolError as error:  # its body is not complete
                raise ConnectionError(str(error)) from error
        if isinstance(event, h11.Response | h11.Data | h11.EndOfMessage):
            return event
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("the server closed the connection before its answer was complete")
