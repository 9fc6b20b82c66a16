"""Writes the tables of names in `docs/reference/` from the code: signature, first sentence, errors.

A page has `<!-- members: Storage get put -->` (or `<!-- members: Storage -->` for all public ones), a table and
`<!-- /members -->`. Run `python docs/member_tables.py` after changing what is public; a test compares.
"""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import runtime
from runtime.namespace.stub import Stub
from runtime.storage.sql import Sql, SqlCursor
from runtime.storage.sync_kv import SyncKv
from runtime.testing import RunningServer

PAGES = sorted((Path(__file__).parent / "reference").glob("*.md"))
MARKED = re.compile(r"(<!-- members: (\w+)([^\n]*?) -->\n).*?(<!-- /members -->)", re.DOTALL)
OTHERS: dict[str, Any] = {cls.__name__: cls for cls in (RunningServer, Sql, SqlCursor, Stub, SyncKv)}

# The runtime's own side of these classes: an app has no use for it.
RUNTIME_SIDE = {
    "ActorId": {"depth", "is_facet"},
    "App": {"classes", "make_env", "namespace_field"},
    "Meter": {"commit", "first_turn", "timer", "turn"},
    "Reference": {"release"},
    "Storage": {
        "alarm_is_due",
        "begin_alarm",
        "close",
        "committed",
        "drop_open",
        "end_alarm",
        "get_private",
        "list_private",
        "prepare",
        "put_private",
        "read_snapshot",
        "sequence",
        "take_batch",
        "write_snapshot",
    },
    "ResponseStream": {"lend", "release"},
    "WebSocket": {"feed_close", "feed_ended", "feed_error", "feed_message"},
}


def written(page: str) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{table(match[2], match[3].split())}\n{match[4]}", page)


def shown(page: str) -> Iterator[tuple[str, str]]:
    """Class and member of every row that the tables of a page have."""
    for _, cls, names, _ in MARKED.findall(page):
        for name in names.split() or members(cls):
            yield cls, name


def table(cls: str, names: list[str]) -> str:
    """One row for each member, in the order given or that of the source."""
    rows = ["| name | what it does | raises |", "|---|---|---|"]
    for name in names or members(cls):
        member = inspect.getattr_static(class_of(cls), name)
        doc = inspect.getdoc(member) or ""
        rows.append(f"| `{_signature(name, member)}` | {_cell(_first_sentence(doc))} | {', '.join(_raised(doc))} |")
    return "\n".join(rows) + "\n"


def members(cls: str) -> list[str]:
    """The methods and properties of a class that an app may use, in the order of the source."""
    hidden = RUNTIME_SIDE.get(cls, set())
    return [
        name
        for name, value in vars(class_of(cls)).items()
        if not name.startswith("_")
        and name not in hidden
        and (callable(value) or isinstance(value, property | classmethod))
    ]


def class_of(name: str) -> Any:
    """A class of the front door, or one that it leads to."""
    return OTHERS.get(name) or getattr(runtime, name)


def _signature(name: str, member: Any) -> str:
    if isinstance(member, property):
        return name
    function = member.__func__ if isinstance(member, classmethod) else member
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in list(signature.parameters.values())[1:]
        if not parameter.name.startswith("_")
    ]
    plain = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    text = str(plain).replace("(/, ", "(").replace(", /)", ")").replace(", /", "").replace("typing.Any", "Any")
    text = re.sub(r"(?:type=)(?:Any|<[^>]*>)", "type=Any", text)
    if inspect.isasyncgenfunction(inspect.unwrap(function)):
        return f"async with {name}{text}"
    return f"{'await ' if inspect.iscoroutinefunction(function) else ''}{name}{text}"


def _first_sentence(doc: str) -> str:
    paragraph = " ".join(doc.partition("\n\n")[0].split()).partition(" Raises: ")[0]
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]


def _raised(doc: str) -> list[str]:
    section = doc.partition("Raises:")[2]
    words = dict.fromkeys(re.findall(r"\b[A-Z]\w+", section))
    errors = (word for word in words if _is_error(getattr(runtime, word, getattr(builtins, word, None))))
    return [f"`{word}`" for word in errors]


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
