"""The kinds of source, by the name they have in `heliograph.toml`."""

from __future__ import annotations

from collections.abc import Mapping

from actors.ingest.source import Kind
from actors.ingest.sources.host import host

KINDS: Mapping[str, Kind] = {"host": host}
