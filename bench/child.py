"""Runs a candidate of a measure without sockets in a process of its own, on the server core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import cattrs

from bench.measure import BenchError, Cases, Setting
from bench.servers import ROOT

LONGEST_S = 300.0


def run_child(module: str, subject: str, setting: Setting, *, longest_s: float = LONGEST_S) -> Cases:
    """Runs `python -m MODULE SUBJECT SECONDS FOLDER`, which prints its cases as JSON.

    Args:
        module: under `bench`.
        subject: what it is to measure.
        setting: quick ones get 0.5 s per case, others 3 s.
        longest_s: for all of it.

    Raises:
        BenchError: it failed or did not end.
    """
    setting.build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=setting.build, prefix="run-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, subject, "0.5" if setting.quick else "3", folder],
                capture_output=True,
                text=True,
                timeout=longest_s,
                check=False,
                cwd=ROOT,
                preexec_fn=lambda: os.sched_setaffinity(0, {setting.server_core}),
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{subject} did not end within {longest_s:g} s") from None
    if done.returncode != 0:
        raise BenchError(f"{subject} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    return cattrs.structure(json.loads(done.stdout), dict[str, dict[str, float]])
