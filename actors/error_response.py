"""The error of a request over HTTP: its status, and a JSON object that says what was wrong and where."""

from __future__ import annotations

from collections.abc import Mapping

from actors.protocol.codes import ErrorCode
from runtime import Response


def error_response(
    error: ErrorCode, message: str, *, at: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """`{"code":…,"slug":…,"msg":…}`; `at`: a JSON Pointer to what is wrong in the request."""
    body: dict[str, object] = {"code": error.code, "slug": error.slug, "msg": message}
    if at is not None:
        body["at"] = at
    return Response.json(body, error.code, headers)
