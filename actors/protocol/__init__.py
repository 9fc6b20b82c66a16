"""`signals.v1`, sans-I/O: messages, cursors, coverage, the client machine; test vectors as JSON."""
