"""Where the JavaScript client is, and how its tools are run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "actors" / "client" / "js"
BUILDS = (
    "heliograph.js",
    "heliograph.script.js",
    "react.js",
    "history.js",
    "msgpack.js",
    "memory-store.js",
    "file-store.js",
)
PATIENCE_S = 240


def program(name: str) -> str:
    """The path of a program; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the PATH")
    return found


def node_modules() -> Path:
    """The folder of the tools; without them the test is skipped."""
    folder = ROOT / "node_modules"
    if not (folder / ".bin" / "esbuild").exists():
        pytest.skip("the JavaScript tools are not installed: `make js` installs them")
    return folder


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command that ends well has written."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    return done.stdout
