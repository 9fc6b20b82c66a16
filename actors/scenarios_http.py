"""Scenarios of publishers that speak HTTP: answers are lost, requests arrive twice, and all of it is there once."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import attrs
import trio

from actors.app import app
from actors.scenarios_clients import Stream
from actors.settings import Settings, SourceSettings
from runtime import Response
from runtime.sim import SimulatedNode, World, scenario

_SECRET = "the secret of the shop"  # noqa: S105 -- of nobody
_PASSING = {429, 500, 502, 503, 504}


@attrs.frozen
class Posts:
    """Who posts JSON until it is answered, each time the same.

    Attributes:
        node: where to. target: of the requests.
    """

    world: World
    node: SimulatedNode
    target: str

    async def post(self, value: Any, headers: dict[str, str]) -> Response:
        """Repeat it until it is known what became of it."""
        body = json.dumps(value).encode()
        while True:
            try:
                signed = headers or _signature(body, self.node.now())
                response = await self.world.request(
                    self.node, "POST", self.target, body=body, headers=signed, repeats=True
                )
                if response.status not in _PASSING:
                    return response
            except OSError:
                pass
            await trio.sleep(0.3)


def _signature(body: bytes, now: float) -> dict[str, str]:
    at = str(round(now))
    digest = hmac.new(_SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"X-Signature": f"t={at},v1={digest}", "X-Delivery": hashlib.sha256(body).hexdigest()[:16]}


@scenario(points=("a signal is published again",))
async def posting(w: World) -> None:
    """Two that publish over HTTP and a sender of webhooks: what is answered is in the stream, and nothing twice."""
    options = {"secrets": [_SECRET], "tolerance_s": 3_600}
    shop = SourceSettings(kind="webhook", name="shop", options=options)
    node = await w.start_node(app, settings=Settings(sources=(shop,), shards=1))
    stream = Stream(w, node)

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        posts = Posts(w, node, "/v1/signals")
        for number in w.times(15):
            await trio.sleep(rng.uniform(0, 0.8))
            signal_id = f"{name}-{number}"
            stream.kinds[signal_id] = "price.tick", name
            signal = {"type": "price.tick", "entity": name, "data": number, "id": signal_id}
            response = await posts.post(signal, {"content-type": "application/json"})
            assert response.status == 201, f"{signal_id} was answered {response.status}: {response.body!r}"
            (offset,) = json.loads(response.body)["offsets"]
            known = stream.by_id.setdefault(offset, signal_id)
            assert known == signal_id, f"offset {offset} was {known} and was given to {signal_id} too"
            stream.acked[signal_id] = offset

    async def shop_sender() -> None:
        rng = w.rng("shop")
        posts = Posts(w, node, "/v1/webhooks/shop")
        for number in w.times(15):
            await trio.sleep(rng.uniform(0, 0.8))
            signals = [{"type": "order.paid", "entity": "c", "data": number, "id": f"o-{number}-{n}"} for n in (1, 2)]
            response = await posts.post(signals, {})
            assert response.status == 202, f"order {number} was answered {response.status}: {response.body!r}"

    async with trio.open_nursery() as everybody:
        everybody.start_soon(lambda: stream.follow("all", lambda _, __: True))
        async with trio.open_nursery() as senders:
            senders.start_soon(publisher, "anna")
            senders.start_soon(publisher, "ben")
            senders.start_soon(shop_sender)
        await stream.end()
    seen = stream.subscribers[0]
    orders = {f"o-{number}-{n}" for number in w.times(15) for n in (1, 2)}
    found = {text[text.index("o-") :] for text in seen.ids if "o-" in text}
    assert orders <= found, f"orders that were accepted are missing: {sorted(orders - found)}"
