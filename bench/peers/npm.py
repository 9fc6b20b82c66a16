"""Packages from npm that a measure compares with, installed into the build folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.measure import BenchError

INSTALL_S = 180


def node_modules(build: Path, *packages: str) -> Path:
    """The folder with these packages (`name@version`), installed when they are not there yet.

    Raises:
        BenchError: there is no npm, or it cannot install them.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise BenchError("needs Node.js with npm")
    folder = build / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    names = [package.rpartition("@")[0] for package in packages]
    if not all((folder / "node_modules" / name).is_dir() for name in names):
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if done.returncode:
            raise BenchError(f"npm cannot install {', '.join(packages)}: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"
