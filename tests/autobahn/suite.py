"""The Autobahn test suite: its original cases, run by kosoku, and what came of each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

SUITE_S = 1_800  # a machine with nothing else to do takes a tenth of it
CASES = 517
WITHOUT_COMPRESSION = ("--exclude", "12.*", "--exclude", "13.*")
COMPRESSION_CASES = 216
REPORT_S = 60
ROOT = Path(__file__).parent.parent.parent
PASSED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})


class NoKosoku(Exception):
    """The tool is not installed."""


@attrs.frozen
class Verdict:
    """What came of one case: of the messages, and of the close."""

    case: str
    messages: str
    close: str

    @property
    def passed(self) -> bool:
        """As the suite itself counts."""
        return self.messages in PASSED and self.close in PASSED


def kosoku() -> Path:
    """The tool, from the environment that runs this. Raises: NoKosoku."""
    found = shutil.which("kosoku", path=str(Path(sys.executable).parent)) or shutil.which("kosoku")
    if found is None:
        raise NoKosoku("no kosoku: install the group `test`")
    return Path(found)


def try_server(url: str, reports: Path, *selection: str) -> list[Verdict]:
    """Run cases (all by default) against an echo server.

    Args:
        reports: where the suite writes a page for each case.
    """
    command = [kosoku(), "--mode", "fuzzingclient", url, "--parallelism", "2", "--outdir", str(reports)]
    subprocess.run([*command, *selection], timeout=SUITE_S, check=False, capture_output=True)
    return read_reports(reports)


def try_client(client: Sequence[str], reports: Path, *selection: str) -> list[Verdict]:
    """Let an echo client run cases (all by default) against the suite's own server.

    Args:
        client: its command, to which the server's URL and a name are added.
        reports: where the suite writes a page for each case.
    """
    command = [kosoku(), "--mode", "fuzzingserver", "127.0.0.1:0", "--outdir", str(reports), *selection]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            url = server.stderr.readline().split()[-1]
            subprocess.run([*client, url, "client"], timeout=SUITE_S, check=True, cwd=ROOT)
            server.communicate(timeout=REPORT_S)
        finally:
            server.kill()
    return read_reports(reports)


def read_reports(reports: Path) -> list[Verdict]:
    """What the suite wrote, in the order of the cases."""
    (cases,) = json.loads((reports / "index.json").read_text()).values()
    verdicts = [Verdict(case, found["behavior"], found["behaviorClose"]) for case, found in cases.items()]
    return sorted(verdicts, key=lambda verdict: [int(part) for part in verdict.case.split(".")])


def summary(verdicts: list[Verdict]) -> str:
    """The counts in one line, and a line for each case that failed."""
    counts = Counter(verdict.messages for verdict in verdicts)
    lines = [f"{len(verdicts)} cases: " + ", ".join(f"{count} {what}" for what, count in counts.most_common())]
    lines += [f"{one.case}: {one.messages}, close {one.close}" for one in verdicts if not one.passed]
    return "\n".join(lines)
