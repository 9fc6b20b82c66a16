"""`python -m tests.conformance SCENARIOS_DIR TRACES_DIR`: run a folder of scenarios and compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import structlog

from tests.conformance.compare import accepted, differences
from tests.conformance.runner import record

TABLE = Path(__file__).with_name("differences.md")
USAGE = "usage: python -m tests.conformance SCENARIOS_DIR TRACES_DIR [NAME ...]"


def main(arguments: list[str]) -> int:
    """Compare every scenario of a folder; 0 when all are the same."""
    if len(arguments) < 2:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    scenarios, traces = Path(arguments[0]), Path(arguments[1])
    files = sorted(path for path in scenarios.glob("*.json") if not arguments[2:] or path.stem in arguments[2:])
    if not files:
        sys.stderr.write(f"no scenarios in {scenarios}\n{USAGE}\n")
        return 2
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    meant = set(accepted(TABLE))
    same = 0
    for path in files:
        found = _compare(path, traces / path.name)
        unmeant = [text for difference, text in found if difference not in meant]
        if unmeant:
            more = f" (and {len(unmeant) - 1} more)" if len(unmeant) > 1 else ""
            sys.stdout.write(f"{path.stem}: {unmeant[0]}{more}\n")
        else:
            same += 1
    sys.stdout.write(f"{same} same, {len(files) - same} different\n")
    return 0 if same == len(files) else 1


def _compare(scenario: Path, trace: Path) -> list[tuple[object, str]]:
    try:
        recorded = json.loads(trace.read_text(encoding="utf-8"))
        here = record(json.loads(scenario.read_text(encoding="utf-8")))
    except Exception as error:  # noqa: BLE001 -- a scenario that cannot run differs
        return [(error, f"{type(error).__name__}: {error}")]
    return [(difference, str(difference)) for difference in differences(recorded, here)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
