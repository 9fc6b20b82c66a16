"""The npm package of the JavaScript client, packed, installed in an empty project, and used there."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.actors.client.javascript import BUILDS, CLIENT, ROOT, node_modules, program, run

LIMIT = 10 * 1_024
CONSUMER = ROOT / "tests" / "js" / "consumer"
DOORS = (".", "./react", "./history", "./msgpack", "./memory-store", "./file-store")
STRICT = ("--strict", "--noEmit", "--target", "es2022", "--lib", "es2023,dom,dom.iterable", "--types", "react")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has nothing but what `npm pack` makes, and React's types."""
    npm, tools = program("npm"), node_modules()
    folder = tmp_path_factory.mktemp("project")
    run(npm, "pack", "--pack-destination", folder, cwd=CLIENT)
    [packed] = folder.glob("*.tgz")
    (folder / "package.json").write_text('{"private": true}')
    run(npm, "install", packed, "--offline", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    (folder / "node_modules" / "@types").mkdir()
    for name in ("@types/react", "csstype"):
        (folder / "node_modules" / name).symlink_to(tools / name)
    for file in (*CONSUMER.iterdir(), ROOT / "tests" / "js" / "types.tsx"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.real
@pytest.mark.parametrize("name", ["esm.mjs", "cjs.cjs"])
def test_what_is_packed_can_be_imported_required_and_run_as_a_script(project: Path, name: str) -> None:
    run(program("node"), name, cwd=project)


@pytest.mark.real
@pytest.mark.parametrize(
    ("module", "resolution", "files"),
    [
        ("node16", "node16", ("types.tsx", "consumer.cts")),
        ("nodenext", "nodenext", ("types.tsx", "consumer.cts")),
        ("esnext", "bundler", ("types.tsx",)),
    ],
)
def test_strict_typescript_accepts_what_is_packed(
    project: Path, module: str, resolution: str, files: tuple[str, ...]
) -> None:
    tsc = node_modules() / "typescript" / "bin" / "tsc"
    how = ("--module", module, "--moduleResolution", resolution, "--jsx", "react-jsx")
    run(program("node"), tsc, *STRICT, *how, *files, cwd=project)


@pytest.mark.real
def test_the_package_has_its_builds_types_sources_licence_and_first_steps_and_nothing_else(project: Path) -> None:
    installed = project / "node_modules" / "heliograph-client"
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    sources = {f"src/{path.name}" for path in (CLIENT / "src").glob("*.js")}
    dist = {f"dist/{path.name}" for path in (CLIENT / "dist").iterdir()}
    types = {path.name for path in CLIENT.glob("*.d.ts")}
    assert files == {"package.json", "README.md", "LICENSE"} | sources | dist | types
    assert (installed / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_each_door_has_a_module_a_commonjs_build_and_types_for_both() -> None:
    exports = json.loads((CLIENT / "package.json").read_text())["exports"]
    assert set(exports) == {*DOORS, "./script", "./package.json"}
    for door in DOORS:
        for kind, types, build in (("import", ".d.ts", ".js"), ("require", ".d.cts", ".cjs")):
            assert list(exports[door][kind]) == ["types", "default"], "TypeScript takes the first that fits"
            assert exports[door][kind]["types"].endswith(types)
            assert exports[door][kind]["default"].endswith(build)
            assert all((CLIENT / path).is_file() for path in exports[door][kind].values())


def test_the_first_steps_name_every_door() -> None:
    text = (CLIENT / "README.md").read_text()
    named = set(re.findall(r"`heliograph-client(/[a-z-]+)?`", text))
    assert {f".{door}" for door in named if door} == {*DOORS, "./script"} - {"."}


def test_only_the_build_for_a_script_does_something_by_being_imported() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert package["sideEffects"] == ["./dist/heliograph.script.js", "./src/script.js"]


@pytest.mark.parametrize("name", BUILDS)
def test_each_build_is_one_file_of_at_most_10_kb_compressed(name: str) -> None:
    built = (CLIENT / "dist" / name).read_bytes()
    assert len(gzip.compress(built, 9)) <= LIMIT
    imported = set(re.findall(rb'from"([^"]+)"', built))
    assert imported == {
        "react.js": {b"react"},
        "history.js": {b"heliograph-client"},
        "file-store.js": {b"node:fs"},
    }.get(name, set())


def test_the_javascript_package_depends_on_nothing() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert not {"dependencies", "optionalDependencies"} & package.keys()
    optional = {name for name, meta in package["peerDependenciesMeta"].items() if meta["optional"]}
    assert package["peerDependencies"].keys() == optional == {"react"}


def test_what_the_package_names_is_there() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    named = [package[key] for key in ("main", "module", "react-native", "types", "unpkg", "jsdelivr")]
    assert [path for path in named if not (CLIENT / path).is_file()] == []
    assert [path for path in package["files"] if not list(CLIENT.glob(path))] == []
