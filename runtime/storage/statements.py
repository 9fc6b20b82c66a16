"""SQL text taken apart into its statements."""

from __future__ import annotations

import re

import apsw

_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?(?:\*/|\Z) | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | ;""",
    re.DOTALL | re.VERBOSE,
)
_NOTHING = re.compile(r"(?:\s|;|--[^\n]*|/\*.*?(?:\*/|\Z))*\Z", re.DOTALL)


def split_statements(text: str) -> list[str]:
    """The statements of a text, each with its semicolon; empty ones and comments by themselves are left out."""
    if ";" not in text:
        return [] if _NOTHING.match(text) else [text]
    found: list[str] = []
    start = 0
    for token in _TOKEN.finditer(text):
        if token.group() == ";":
            statement = text[start : token.end()]
            if apsw.complete(statement):  # a semicolon in the body of a trigger ends nothing
                found.append(statement)
                start = token.end()
    found.append(text[start:])
    return [statement for statement in found if not _NOTHING.match(statement)]
