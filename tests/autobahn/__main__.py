"""`make autobahn`: the suite against a server of this checkout, with a report in build/autobahn.

Arguments go to kosoku: `-i 9.*` for some of the cases, `-x 12.*` for all others.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.autobahn.suite import summary, try_server
from tests.browser.serving import Server

REPORTS = Path("build/autobahn")


def main(selection: list[str]) -> int:
    """Returns: the exit code, 1 when a case failed."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", "--test-routes")
        server.start()
        begun = time.perf_counter()
        try:
            verdicts = try_server(f"ws://127.0.0.1:{server.port}/_test/echo", REPORTS, *selection)
        finally:
            server.kill()
    sys.stdout.write(f"{summary(verdicts)}\n{time.perf_counter() - begun:.0f} s; each case in {REPORTS}/index.html\n")
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
