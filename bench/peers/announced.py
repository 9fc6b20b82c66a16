"""Says where a program listens that does not say it in our words: `python -m bench.peers.announced PORT PROGRAM ARG…`.

The program keeps this process's id, so that what is measured of it is its own.
"""

from __future__ import annotations

import os
import socket
import sys
import time

READY_S = 20.0


def main() -> None:
    """Starts the program in this process, and leaves a child that prints the line once the port answers."""
    port, command = int(sys.argv[1]), sys.argv[2:]
    if os.fork() == 0:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                print(f"listening on http://127.0.0.1:{port}", flush=True)
                break
        os._exit(0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
