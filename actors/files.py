"""Files of the package that browsers get, with what they may do: nothing but what comes from here."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable

from runtime import Request, Response

_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_NO_HEADERS: Mapping[str, str] = {}
_COMPRESSED_BYTES = 1_400  # what fits one packet anyway is sent as it is
_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)


def file_response(request: Request, file: Traversable, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """A file, or that the browser has it already; 404 when there is none of this name. Longer texts are compressed.

    Args:
        headers: of the answer with a file, in place of the usual ones of the same names.
    """
    if not _NAME.fullmatch(file.name) or not file.is_file():
        return Response.text(f"nothing at {request.path}\n", 404)
    content = file.read_bytes()
    tag = f"{hashlib.sha256(content).hexdigest()[:24]}"
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in {"application/javascript", "application/json", "image/svg+xml"}:
        kind += "; charset=utf-8"
    shown = {**_PAGE_HEADERS, **headers, "content-type": kind}
    if "charset" in kind and len(content) > _COMPRESSED_BYTES:
        shown["vary"] = "accept-encoding"
        if _takes_gzip(request):
            tag += "-gzip"
            shown["content-encoding"] = "gzip"
    tag = shown["etag"] = f'"{tag}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, b"", shown)
    if "content-encoding" in shown:
        content = gzip.compress(content, 6, mtime=0)
    return Response(200, content, shown)


def _takes_gzip(request: Request) -> bool:
    """Said in so many words; what is only preferred less is left out, too."""
    offered = request.headers.get("accept-encoding", "").lower().split(",")
    return any(one.strip() == "gzip" for one in offered)
