"""The console's page and what it is made of: built files of the package, under a strict policy."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from actors.env import Env
from actors.files import file_response
from actors.routes import only
from runtime import Request, Response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {"content-security-policy": _POLICY}
# The name of an asset has a hash of its content: another content has another name.
_ASSET_HEADERS = {**_PAGE_HEADERS, "cache-control": "public, max-age=31536000, immutable"}


@only("GET", "HEAD")
async def entrance(request: Request, env: Env) -> Response:
    """Relative addresses of the page need the slash at the end."""
    return _off(request, env) or Response(308, b"", {"location": "/console/"})


@only("GET", "HEAD")
async def page(request: Request, env: Env) -> Response:
    """The page. Anybody may have it: what it shows comes from the API, which asks who they are."""
    return _off(request, env) or file_response(request, _built() / "index.html", _PAGE_HEADERS)


@only("GET", "HEAD")
async def asset(request: Request, env: Env) -> Response:
    """A script or a style of the page."""
    return _off(request, env) or file_response(request, _built() / request.params["name"], _ASSET_HEADERS)


def _built() -> Traversable:
    return resources.files("actors.console") / "page" / "built"


def _off(request: Request, env: Env) -> Response | None:
    if not env.settings.console.enabled:
        return Response.text(f"nothing at {request.path}\n", 404)
    return None
