"""Plants a bug into a copy of the tree and has it looked for there: the comparison has to find what it is made for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent.parent.parent
PATCHES = tuple(sorted((Path(__file__).parent.parent / "planted").glob("*.patch")))
_COPIED = ("runtime", "tests")
_FOUND = re.compile(r"difference after (\d+) programs")
_IGNORED = shutil.ignore_patterns("__pycache__")


def with_planted(patch: Path, programs: int, seed: int) -> bool:
    """Look for one bug; whether it was found within so many programs."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=_IGNORED)
        (copy / "build").mkdir()
        (copy / "build" / "conformance").symlink_to(ROOT / "build" / "conformance")
        subprocess.run(["patch", "--quiet", "-p1", "-i", str(patch)], cwd=copy, check=True)
        command = [sys.executable, "-m", "tests.conformance.live", "random", f"--programs={programs}", f"--seed={seed}"]
        command.append(f"--beside={ROOT}")
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    found = _FOUND.search(done.stdout)
    if found is None:
        click.echo(f"{patch.stem}: not found in {programs} programs\n{done.stdout[-500:]}{done.stderr[-500:]}")
        return False
    click.echo(f"{patch.stem}: found after {found[1]} programs\n  {done.stdout.strip().splitlines()[-1]}")
    return True
