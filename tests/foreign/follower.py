"""`signals.v1` in a page, for clients that are nothing but a WebSocket library: one subscription to everything."""

from __future__ import annotations

import json
from typing import Any

SUBPROTOCOL = "signals.v1.json"


class Follower:
    """What one client has been told, over any number of connections; no I/O.

    Args:
        wanted: how many signals it is to get.
    """

    def __init__(self, wanted: int) -> None:
        self.offsets: list[int] = []
        self.resumed: list[bool] = []
        self.compressed: list[bool] = []
        self._wanted = wanted
        self._cursor = -1
        self._epoch = ""
        self._resume: str | None = None

    @property
    def done(self) -> bool:
        """It has all that it wants."""
        return len(self.offsets) >= self._wanted

    def hello(self) -> str:
        """The first message of a connection."""
        since: object = {"cursor": f"{self._epoch}:{self._cursor}"} if self._epoch else "earliest"
        hello: dict[str, Any] = {
            "t": "hello",
            "id": 1,
            "features": ["deflate"],
            "subs": [{"s": "all", "filter": {}, "from": since}],
        }
        if self._resume is not None:
            hello["resume"] = self._resume
        return json.dumps(hello)

    def hear(self, text: str | bytes) -> None:
        """Take a frame. Raises: AssertionError: something is missing."""
        for line in (text if isinstance(text, str) else text.decode()).split("\n"):
            message = json.loads(line)
            if message["t"] == "welcome":
                (subok,) = message["subs"]
                assert subok["t"] == "subok", subok
                self._epoch, self._resume = message["epoch"], message["resume"]
                self._cursor = int(subok["from"].rpartition(":")[2])
                self.resumed.append(message["resumed"])
                self.compressed.append("deflate" in message["features"])
            elif message["t"] == "sig" and message["b"] > self._cursor:
                assert message["a"] <= self._cursor, (message["a"], self._cursor)
                self.offsets += [signal["o"] for signal in message["d"] if signal["o"] > self._cursor]
                self._cursor = message["b"]
