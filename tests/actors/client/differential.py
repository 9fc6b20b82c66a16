"""The Python machine against the JavaScript machine: `python -m tests.actors.client.differential CASES [SEED]`.

The Python machine lives through random cases; a Node process is given the same inputs in bulk and must answer alike.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from actors.protocol.encoding import JSON, MSGPACK, Encoding
from tests.actors.client.random_frames import Life

REPLAY = Path(__file__).parents[2] / "js" / "replay.mjs"
BATCH = 2_000
BATCH_S = 120
WORDS = ("reason", "msg")  # for people: each client has its own, but for the reason of a gap


def compare(node: str, cases: int, seed: int = 0) -> Counter[str]:
    """Run the cases; returns how often each event occurred, and each type of message was sent.

    Raises: AssertionError, with the first difference.
    """
    seen: Counter[str] = Counter()
    for first in range(seed, seed + cases, BATCH):
        numbers = range(first, min(first + BATCH, seed + cases))
        lives = [_life(number) for number in numbers]
        for life, number, answers in zip(lives, numbers, _replayed(node, lives), strict=True):
            _assert_alike(life, number, answers)
            for answer in life.answers:
                seen.update(_name(event) for event in answer["events"])
                seen.update(f"sent {message['t']}" for messages in answer["sent"] for message in messages)
    return seen


def _life(number: int) -> Life:
    life = Life(Random(number), encoding=MSGPACK if number % 4 == 0 else JSON)
    life.live()
    return life


def _replayed(node: str, lives: list[Life]) -> list[list[dict[str, Any]]]:
    cases = ({"random": life.draws, "encoding": life.encoding.name, "steps": life.steps} for life in lives)
    text = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([node, REPLAY], input=text, capture_output=True, text=True, timeout=BATCH_S, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for life, steps in zip(lives, answers, strict=True):
        for answer in steps:
            assert "failed" not in answer, answer["failed"]
            answer["sent"] = [[_read(frame, life.encoding) for frame in frames] for frames in answer["sent"]]
    return answers


def _read(frame: dict[str, str], encoding: Encoding) -> object:
    """The message of a frame, which Python reads as the server does."""
    [message] = encoding.parse(frame["text"] if "text" in frame else base64.b64decode(frame["binary"]))
    return message


def _assert_alike(life: Life, number: int, answers: list[dict[str, Any]]) -> None:
    for at, (step, here, there) in enumerate(zip(life.steps, life.answers, answers, strict=True)):
        if (python := _plain(here)) != (javascript := _plain(there)):
            steps = "\n".join(json.dumps(one) for one in life.steps[: at + 1])
            raise AssertionError(
                f"case {number} differs at step {at}: {json.dumps(step)}\n"
                f"python:     {json.dumps(python)}\njavascript: {json.dumps(javascript)}\n"
                f"draws {life.draws}, steps until then:\n{steps}"
            )


def _plain(answer: Any) -> Any:
    """The answer without absent values and without words."""
    match answer:
        case dict():
            words = WORDS if answer.get("e") != "gap" else ()
            dropped = (*words, *(("client",) if answer.get("t") == "hello" else ()))
            slug = ("slug",) if answer.get("e") == "sub" else ()
            kept = {key: value for key, value in answer.items() if value is not None and key not in (*dropped, *slug)}
            return {key: _plain(value) for key, value in kept.items()}
        case list():
            return [_plain(value) for value in answer]
        case _:
            return answer


def _name(event: dict[str, Any]) -> str:
    what = {"state": "state", "sub": "state", "close": "code", "gap": "reason"}.get(event["e"])
    return str(event["e"]) if what is None else f"{event['e']} {event[what]}"


if __name__ == "__main__":
    for name, count in sorted(compare("node", int(sys.argv[1]), int((sys.argv[2:] or ["0"])[0])).items()):
        sys.stdout.write(f"{count:9,} {name}\n")
