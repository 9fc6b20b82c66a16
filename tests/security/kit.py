"""Attackers: raw bytes on connections to the whole service, from any address, in virtual time."""

from __future__ import annotations

import json
import os
import struct
import zlib
from contextlib import asynccontextmanager

import trio

from actors.app import app
from actors.settings import Settings
from runtime.testing import start_server

HOST = "127.0.0.1:8787"
STRANGER = "203.0.113.9"  # an address on another machine: limits count
QUIET = Settings(sources_enabled=False)
KEY = "AAECAwQFBgcICQoLDA0ODw=="


@asynccontextmanager
async def service(settings=QUIET, **options):
    async with start_server(app, settings=settings, **options) as server:
        yield server


async def connect(server, peer="127.0.0.1"):
    return await server.network.connect("127.0.0.1", 8787, peer=peer)


def get(target="/healthz", *lines, host=HOST, method="GET"):
    """A request without a body; each of `lines` is a header."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def upgrade(*lines, target="/v1/stream", host=HOST):
    opening = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    return get(target, *opening, *lines, host=host)


async def exchange(server, data, *, peer="127.0.0.1"):
    """Send bytes and return all that comes back until the server closes, or has nothing to say for a minute."""
    received = b""
    async with await connect(server, peer) as stream:
        try:
            await stream.send_all(data)
            with trio.move_on_after(60):
                while more := await stream.receive_some():
                    received += more
        except trio.BrokenResourceError:
            pass
    return received


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


def frame(payload, opcode=1, *, fin=True, rsv1=False, masked=True, length=None):
    """One frame of a client; `length` is what its header claims."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 65_536:
        head += bytes([mask | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4)  # noqa: TID251 -- what it is does not matter
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def deflated(payload):
    compressor = zlib.compressobj(wbits=-15, level=9)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Socket:
    """A WebSocket client that keeps no rule."""

    def __init__(self, stream):
        self.stream = stream
        self.answer = b""
        self._received = b""

    async def open(self, *lines):
        await self.stream.send_all(upgrade(*lines))
        while b"\r\n\r\n" not in self._received:
            more = await self.stream.receive_some()
            if not more:
                break
            self._received += more
        self.answer, _, self._received = self._received.partition(b"\r\n\r\n")
        return self

    async def send(self, data):
        await self.stream.send_all(data)

    async def say(self, **message):
        await self.send(frame(json.dumps(message).encode()))

    async def next(self):
        """The next frame as (opcode, payload); None at the end."""
        while True:
            taken = self._take()
            if taken is not None:
                return taken
            try:
                more = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not more:
                return None
            self._received += more

    async def messages(self):
        """The next frame's messages."""
        opcode, payload = await self.next()
        assert opcode == 1, (opcode, payload)
        return [json.loads(line) for line in payload.split(b"\n")]

    async def closed(self):
        """The code of the close frame, with everything before it skipped; None without one."""
        while (taken := await self.next()) is not None:
            opcode, payload = taken
            if opcode == 8:
                return struct.unpack_from("!H", payload)[0] if payload else 1005
        return None

    def _take(self):
        data = self._received
        if len(data) < 2:
            return None
        size, at = data[1], 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, 2)[0] if len(data) >= 4 else 1 << 62, 4
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, 2)[0] if len(data) >= 10 else 1 << 62, 10
        if len(data) < at + size:
            return None
        self._received = data[at + size :]
        return data[0] & 15, data[at : at + size]


@asynccontextmanager
async def socket(server, *lines, peer="127.0.0.1", hello=None):
    """An open WebSocket; with `hello` it is welcomed."""
    async with await connect(server, peer) as stream:
        opened = await Socket(stream).open(*lines)
        assert status(opened.answer) == 101, opened.answer
        if hello is not None:
            await opened.say(t="hello", id=1, **hello)
            welcome, *_ = await opened.messages()
            assert welcome["t"] == "welcome", welcome
        yield opened
