"""What the console's API says of connections and subscriptions that no test could hold still."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route

from tests.browser.serving import READY_S, Server

MANY = 10_000
FILTER = {"types": ["price.>"], "where": {"/data/pct": {"gte": 2.5}}}
TREE = {
    "node": "and",
    "matches": False,
    "why": "1 of 2 says no",
    "children": [
        {"node": "types price.>", "matches": True, "why": "price.tick is one of them", "children": []},
        {"node": "/data/pct >= 2.5", "matches": False, "why": "it is 1", "children": []},
    ],
}


class Answers:
    """Gives them to a page instead of the server.

    Attributes:
        connections: how many there are. ended: whether the opened one has gone. asked: what lists were asked for, the
        oldest first. done: what was posted, oldest first: the end of the path and the body.
    """

    def __init__(self, page: Page, server: Server) -> None:
        with urllib.request.urlopen(f"{server.url}/console/api/session", timeout=READY_S) as response:
            said = json.load(response)
        pages = list(dict.fromkeys([*said["pages"], "connections", "subscriptions"]))
        self.connections = MANY
        self.ended = False
        self.asked: list[dict[str, str]] = []
        self.done: list[tuple[str, Any]] = []
        page.route("**/console/api/session", lambda route: route.fulfill(json={**said, "pages": pages}))
        page.route("**/console/api/connections?*", self._connections)
        page.route("**/console/api/connections/**", self._connection)
        page.route("**/console/api/subscriptions?*", self._subscriptions)
        page.route("**/console/api/explain", self._explain)

    def _connections(self, route: Route) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        self.asked.append(query)
        offset = int(query["offset"])
        rows = [connection(n) for n in range(offset, min(offset + int(query["limit"]), self.connections))]
        route.fulfill(json={"total": self.connections, "rows": rows})

    def _connection(self, route: Route) -> None:
        _, _, rest = urlsplit(route.request.url).path.partition("/connections/")
        if route.request.method == "POST":
            assert route.request.headers["x-heliograph-console"] == "1"
            self.done.append((rest, route.request.post_data_json))
            route.fulfill(status=204)
        elif self.ended:
            route.fulfill(status=404, json={"code": 404, "slug": "no_connection", "msg": "it has ended"})
        else:
            events = [event(n) for n in range(200)]
            route.fulfill(json={**connection(0), "subscriptions": [subscription()], "events": events})

    @staticmethod
    def _subscriptions(route: Route) -> None:
        row = {"group": "g12@main/3", "stream": "main", "filter": FILTER, "text": "types price.> and /data/pct >= 2.5"}
        figures = {"members": 7, "evaluated": 1_000, "matched": 25, "match_rate": 0.025, "bytes_per_s": 2_500}
        route.fulfill(json={"total": 1, "rows": [{**row, **figures}]})

    def _explain(self, route: Route) -> None:
        self.done.append(("explain", route.request.post_data_json))
        result = {"filter": FILTER, "text": "price.> and pct >= 2.5", "members": 7, "matches": False, "tree": TREE}
        route.fulfill(json={"results": [result]})


def connection(n: int) -> dict[str, Any]:
    """A row; the first of them is slow, and the second has no user yet."""
    user = None if n == 1 else f"user-{n}"
    about = {"session": f"s{n}", "stream": "main", "shard": 3, "user": user, "sdk": "heliograph-js/0.1.0"}
    times = {"age_ms": 61_000 + n, "rtt_ms": None if n == 1 else 12.5, "lag": 40}
    sent = {"backlog_bytes": 2_048, "sent": 1_234, "sent_bytes": 99_000, "dropped": 3 if n == 0 else 0, "conflated": 1}
    state = {"peer": "192.0.2.7", "encoding": "json", "subs": 1, "state": "slow" if n == 0 else "open"}
    return {**about, **times, **sent, **state}


def subscription() -> dict[str, Any]:
    """The one that an opened connection has."""
    about = {"sid": "prices", "filter": FILTER, "mode": "stream", "state": "live"}
    return {**about, "position": 1_234, "on_slow": "drop_oldest", "matched": 25}


def event(n: int) -> dict[str, Any]:
    """One that the flight recorder has."""
    direction = ("in", "out", "note")[n % 3]
    return {"at": 1_790_000_000_000 + n, "dir": direction, "kind": "sub", "bytes": 120, "text": f"event {n}"}
