"""The kinds of source, by the name they have in `heliograph.toml`; anybody's own as `module:factory`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from actors.ingest.source import InvalidOptions, Kind

# Named, not imported: a server loads what it is configured to use.
KINDS: Mapping[str, Kind | str] = {
    "command": "actors.ingest.sources.command:command",
    "feed": "actors.ingest.sources.feed:feed",
    "file": "actors.ingest.sources.file:file",
    "heliograph": "actors.ingest.sources.heliograph:heliograph",
    "host": "actors.ingest.sources.host:host",
    "http": "actors.ingest.sources.http:http",
    "webhook": "actors.ingest.sources.webhook:webhook",
    "websocket": "actors.ingest.sources.websocket:websocket",
}


def find_kind(name: str, kinds: Mapping[str, Kind | str] = KINDS) -> Kind:
    """What makes sources of this kind; a module is looked for among the installed and in the working directory.

    Raises: InvalidOptions.
    """
    found = kinds.get(name, name)
    if not isinstance(found, str):
        return found
    module_name, _, factory = found.partition(":")
    if not module_name or not factory:
        near = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidOptions(f"unknown kind {name!r}; {hint}known: {', '.join(sorted(kinds))}, or `module:factory`")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a mistake inside the module: its traceback says where
        raise InvalidOptions(f"kind {name!r}: no module {error.name!r} here or among the installed") from error
    finally:
        sys.path.pop(0)
    kind: Kind | None = getattr(module, factory, None)
    if not callable(kind):
        raise InvalidOptions(f"kind {name!r}: {module_name} has no {factory!r} that can be called")
    return kind
