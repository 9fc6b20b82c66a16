"""Compiles the C programs of the bench: the load clients and the limit servers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.measure import BenchError

SOURCES = Path(__file__).parent / "c"
PROGRAMS = {
    "wsload": ("wsload.c", "client.c", "account.c", "options.c"),
    "wsask": ("wsask.c",),
    "limit": ("limit.c",),
}


def compile_program(name: str, build: Path) -> Path:
    """Compiles a program unless it is newer than everything it is made of, and returns its path.

    Raises:
        BenchError: there is no C compiler, or the compiler refuses the source.
    """
    program = build / name
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError(
            "the load clients and the limit servers are C programs, and no C compiler (gcc or cc) is on the PATH; "
            "install one, for example with `apt-get install gcc libc6-dev`"
        )
    build.mkdir(parents=True, exist_ok=True)
    sources = [str(SOURCES / source) for source in PROGRAMS[name]]
    command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", str(program), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr}")
    return program
