"""Reads server-sent events as a browser does, from a server in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import attrs
import trio

from actors.app import app
from actors.settings import Settings
from runtime.testing import start_server

SETTINGS = Settings(sources_enabled=False, shards=1)
EVENT_STREAM = {"accept": "text/event-stream"}


class Events:
    """Reads a stream as a browser does; `last_id` is what it would send as `Last-Event-ID`."""

    def __init__(self, response):
        self.response = response
        self.last_id = ""
        self.retry = None
        self.comments = []
        self._text = ""

    async def next(self, seconds=5.0):
        """The next event that calls somebody: its name and its data."""
        with trio.fail_after(seconds):
            while True:
                while "\n\n" not in self._text:
                    self._text += (await anext(self.response.stream)).decode()
                block, _, self._text = self._text.partition("\n\n")
                fields = {}
                for line in block.split("\n"):
                    name, _, value = line.partition(":")
                    if name:
                        fields[name] = value.removeprefix(" ")
                    else:
                        self.comments.append(value)
                self.last_id = fields.get("id", self.last_id)
                self.retry = fields.get("retry", self.retry)
                if "data" in fields:
                    return fields["event"], json.loads(fields["data"])

    async def signals(self, count):
        """The data of the next signals."""
        found = []
        while len(found) < count:
            name, data = await self.next()
            assert name == "sig", (name, data)
            found += [signal["data"] for signal in data["d"]]
        return found

    async def all_before_the_cut(self):
        """The data of the signals that come before the connection ends within the response."""
        found = []
        try:
            while True:
                found += await self.signals(1)
        except ConnectionError:
            return found

    async def ends(self, seconds=60.0):
        """Read until the end, and return the events."""
        found = []
        try:
            while True:
                found.append(await self.next(seconds))
        except StopAsyncIteration:
            return found


@asynccontextmanager
async def listening(server, query="", headers=EVENT_STREAM, path="/v1/sse"):
    async with server.stream("GET", f"{path}{query}", headers=headers) as response:
        assert response.status == 200, response
        yield Events(response)


async def publish(server, *numbers, type_="price.tick", path="/v1/signals", headers=None, entity="x"):
    signals = [{"type": type_, "entity": entity, "data": number} for number in numbers]
    response = await server.request("POST", path, headers=headers, json_body=signals)
    assert response.status == 201
    return json.loads(response.body)


@asynccontextmanager
async def serving(**settings):
    async with start_server(app, settings=attrs.evolve(SETTINGS, **settings)) as running:
        yield running
