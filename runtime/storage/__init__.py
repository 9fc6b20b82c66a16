"""The memory floor: synchronous reads and writes, one asynchronous commit."""
