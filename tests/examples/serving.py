"""The folder of the examples, and servers that run what is in one."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading  # noqa: TID251 - the other side of a webhook
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@contextmanager
def process(*command: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Python with these arguments; killed at the end of the block."""
    with subprocess.Popen([sys.executable, *command], cwd=cwd, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


class Webhook:
    """What is posted to it, and what that means: posted again under the same key, it counts once.

    Attributes:
        posts: the keys in order, with repetitions. acted: what it did, by key.
        refusals: how many of the next requests are answered with 503.
    """

    def __init__(self) -> None:
        self.posts: list[str] = []
        self.acted: dict[str, str] = {}
        self.refusals = 0

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer for the time of the block, at this URL."""
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = 503 if webhook.refusals > 0 else 204
                if status == 503:
                    webhook.refusals -= 1
                else:
                    key = self.headers["Idempotency-Key"]
                    webhook.posts.append(key)
                    webhook.acted.setdefault(key, content["text"])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/alerts"
            finally:
                server.shutdown()
                thread.join()
