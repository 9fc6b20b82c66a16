"""The signal service with a page of your own beside it: `heliograph serve board:app`, then `/board`."""

from pathlib import Path

import attrs

from actors.app import app as service
from actors.env import Env
from runtime import Request, Response

PAGE = Path(__file__).with_name("board.html").read_bytes()


async def board(_request: Request, _env: Env) -> Response:
    """The page, from the same origin as `/client.js` and the stream."""
    return Response(200, PAGE, {"content-type": "text/html; charset=utf-8"})


app = attrs.evolve(service, routes={**service.routes, "/board": board})
