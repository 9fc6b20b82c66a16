"""The signal service with the script of a worker beside it."""

import attrs

from actors.app import app as service
from actors.env import Env
from runtime import Request, Response

SCRIPT = b"""
import { SignalClient } from "/client.js";

const client = new SignalClient();
for await (const { offset } of client.subscribe({ types: "t.>", since: "earliest" })) postMessage(offset);
"""


async def worker(_request: Request, _env: Env) -> Response:
    """A module, for `new Worker(…, { type: "module" })`."""
    return Response(200, SCRIPT, {"content-type": "text/javascript"})


app = attrs.evolve(service, routes={**service.routes, "/worker.js": worker})
