"""For the tests of apps: virtual time, in-memory network, and actors that can be evicted, aborted and crashed."""

from runtime.storage.memory import MemoryStore
from runtime.testing.platform import virtual_platform
from runtime.testing.server import RunningServer, start_server
from runtime.testing.streams import MemoryNetwork

__all__ = ["MemoryNetwork", "MemoryStore", "RunningServer", "start_server", "virtual_platform"]
