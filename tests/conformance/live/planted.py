"""Plants a bug into a copy of the tree and has it looked for there: the comparison has to find what it is made for."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.compare import differences
from tests.conformance.live.differential import HERE, Comparison, Judged
from tests.conformance.live.here import Here, Trace
from tests.conformance.live.servers import Servers

ROOT = Path(__file__).parent.parent.parent.parent
PATCHES = tuple(sorted((Path(__file__).parent.parent / "planted").glob("*.patch")))
_COPIED = ("runtime", "tests")
_IGNORED = shutil.ignore_patterns("__pycache__", "node_modules")


@contextmanager
def with_bug(patch: Path) -> Generator[Path]:
    """A copy of the tree with one bug planted into it.

    Raises:
        subprocess.CalledProcessError: the patch does not fit the tree any more.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=_IGNORED)
        command = ["patch", "--quiet", "--posix", "-p1", "-i", str(patch)]
        subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True)
        yield copy


async def first_found(servers: Servers, plain: Here, bug: Here, same: Sequence[Judged]) -> Judged | None:
    """The first program that finds a bug.

    What counts is what the real runtime does four times, this tree does three times, and the one with the bug never.

    Args:
        servers: the real runtime.
        plain: this tree. bug: the one with the bug.
        same: programs that have the same trace there and in this tree, by their numbers.
    """
    comparison = Comparison(servers, bug, plain)
    for one in same:
        there = one.verdict.there
        trace = await bug.trace(one.program)
        if not differences(there, trace):
            continue
        if await bug.outcomes(one.program, trace, HERE).how(there) is not None:
            continue
        if await _varies(plain, one.program, there):
            continue
        verdict = await comparison.judge(one.program, trace)
        if verdict.texts:
            return Judged(one.number, one.program, verdict)
    return None


async def _varies(plain: Here, program: Trace, there: Trace) -> bool:
    return any([bool(differences(there, await plain.trace(program))) for _ in range(HERE)])
