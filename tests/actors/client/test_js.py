"""The JavaScript client: its own tests by Node's test runner, its types, its builds, and what it promises."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.client.javascript import CLIENT, PATIENCE_S, ROOT, node_modules, program, run
from tests.browser.serving import Server


@pytest.fixture(scope="module")
def node() -> str:
    return program("node")


@pytest.fixture(scope="module")
def tools() -> Path:
    return node_modules()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    running.start()
    yield running
    running.kill()


@pytest.mark.real
@pytest.mark.parametrize("loader", [(), ("--import", "./tests/js/built.mjs")], ids=["its source", "its builds"])
def test_the_javascript_client_passes_the_vectors_and_its_own_claims(
    node: str, tools: Path, loader: tuple[str, ...]
) -> None:
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    run(node, *loader, "--test", "--test-reporter=spec", *files)


@pytest.mark.real
def test_the_types_say_what_is_allowed(node: str, tools: Path) -> None:
    run(node, tools / "typescript" / "bin" / "tsc", "--project", "tests/js")


@pytest.mark.real
def test_the_builds_in_the_repository_are_those_of_the_source(node: str, tools: Path, tmp_path: Path) -> None:
    run(node, CLIENT / "build.mjs", tmp_path)
    made, kept = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path, CLIENT / "dist"))
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == [], "run `npm run build`"


@pytest.mark.real
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("package", ["ws", "undici"])
def test_a_node_program_reads_publishes_and_pages_over_a_socket_and_in_an_encoding_of_its_choice(
    node: str, tools: Path, server: Server, package: str, encoding: str
) -> None:
    out = run(node, ROOT / "tests" / "js" / "real.mjs", server.url, package, encoding)
    hundred = list(range(1, 101))
    assert json.loads(out) == {"published": hundred, "read": hundred, "wrong": [], "paged": [*hundred, 101]}


@pytest.mark.real
def test_memory_is_flat_over_a_million_signals(node: str) -> None:
    told = json.loads(run(node, "--expose-gc", ROOT / "tests" / "js" / "memory.mjs", "1000000"))
    assert (told["handled"], told["looped"]) == (1_000_000, 1_000_000)
    first, *later = told["heaps"]
    assert max(later) < first + 2**19, "half a byte for each signal"


@pytest.mark.real
def test_the_example_consumer_skips_nothing_when_it_is_killed_and_ends_when_it_is_told_to(
    node: str, tools: Path, server: Server, tmp_path: Path
) -> None:
    command = [node, ROOT / "docs" / "examples" / "node-consumer" / "consumer.mjs", server.url, tmp_path / "state.json"]

    def consume(upto: int) -> tuple[subprocess.Popen[str], list[int]]:
        """Start it, and read until it has reached an offset."""
        running = subprocess.Popen([*command, "t.>"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert running.stdout is not None
        offsets: list[int] = []
        while upto not in offsets:
            offsets.append(json.loads(running.stdout.readline())["offset"])
        return running, offsets

    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(50)))
    first, before = consume(50)
    first.kill()
    first.wait(PATIENCE_S)
    assert first.stdout is not None
    first.stdout.close()
    server.post(*({"type": "t.a", "entity": "e", "data": n} for n in range(50)))
    second, after = consume(100)
    second.terminate()
    assert second.wait(PATIENCE_S) == 0
    assert second.stdout is not None
    second.stdout.close()
    assert before == list(range(1, 51))
    assert after == list(range(after[0], 101))
    assert after[0] <= 51


def test_a_source_file_is_one_idea_and_has_at_most_500_lines() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in (CLIENT / "src").glob("*.js")}
    assert {name: count for name, count in lines.items() if count > 500} == {}
