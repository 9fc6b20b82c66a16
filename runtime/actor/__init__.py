"""The actor floor: one live actor, its gates and its sockets; the only code that runs user handlers."""
