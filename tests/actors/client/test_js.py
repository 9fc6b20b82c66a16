"""The JavaScript client: its own tests by Node's test runner, its types, its builds, and what it promises."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.serving import Server

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "actors" / "client" / "js"
BUILDS = ("heliograph.js", "heliograph.script.js", "react.js")
LIMIT = 10 * 1_024
PATIENCE_S = 120


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on the PATH")
    return found


@pytest.fixture(scope="module")
def tools() -> Path:
    folder = ROOT / "node_modules"
    if not (folder / ".bin" / "esbuild").exists():
        pytest.skip("the JavaScript tools are not installed: `make js` installs them")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    running.start()
    yield running
    running.kill()


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    return done.stdout


@pytest.mark.real
def test_the_javascript_client_passes_the_vectors_and_its_own_claims(node: str, tools: Path) -> None:
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    run(node, "--test", "--test-reporter=spec", *files)


@pytest.mark.real
def test_the_types_say_what_is_allowed(node: str, tools: Path) -> None:
    run(node, tools / "typescript" / "bin" / "tsc", "--project", "tests/js")


@pytest.mark.real
def test_the_builds_in_the_repository_are_those_of_the_source(node: str, tools: Path, tmp_path: Path) -> None:
    run(node, CLIENT / "build.mjs", tmp_path)
    stale = [name for name in BUILDS if (tmp_path / name).read_bytes() != (CLIENT / "dist" / name).read_bytes()]
    assert stale == [], "run `npm run build`"


@pytest.mark.real
@pytest.mark.parametrize("package", ["ws", "undici"])
def test_a_node_program_reads_and_publishes_over_a_socket_of_its_choice(
    node: str, tools: Path, server: Server, package: str
) -> None:
    out = run(node, ROOT / "tests" / "js" / "real.mjs", server.url, package)
    assert json.loads(out) == {"published": list(range(1, 101)), "read": list(range(1, 101))}


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


@pytest.mark.parametrize("name", BUILDS)
def test_each_build_is_one_file_of_at_most_10_kb_compressed(name: str) -> None:
    built = (CLIENT / "dist" / name).read_bytes()
    assert len(gzip.compress(built, 9)) <= LIMIT
    assert built.count(b"import{") == (name == "react.js")


def test_the_javascript_package_depends_on_nothing() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert not {"dependencies", "optionalDependencies"} & package.keys()
    optional = {name for name, meta in package["peerDependenciesMeta"].items() if meta["optional"]}
    assert package["peerDependencies"].keys() == optional == {"react"}


def test_what_the_package_names_is_there() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    named = [package["main"], package["types"], *package["files"]]
    for door in package["exports"].values():
        named += [door] if isinstance(door, str) else door.values()
    assert [path for path in named if not (CLIENT / path).exists()] == []


def test_a_source_file_is_one_idea_and_has_at_most_500_lines() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in (CLIENT / "src").glob("*.js")}
    assert {name: count for name, count in lines.items() if count > 500} == {}
