"""The scenario language: every operation, against the public surface of the runtime."""

from __future__ import annotations

from tests.conformance.calls import CALLS
from tests.conformance.control import CONTROL
from tests.conformance.socket_operations import SOCKETS
from tests.conformance.storage_operations import STORAGE

OPERATIONS = CONTROL | CALLS | STORAGE | SOCKETS
