"""The console's page as it is shipped: built from its sources, and served under a strict policy."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from actors.app import app
from runtime.testing import start_server
from tests.actors.console.test_console import QUIET

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = ROOT / "actors" / "console" / "page"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on the PATH")
    if not (ROOT / "node_modules" / "preact").exists():
        pytest.skip("the JavaScript tools are not installed: `make js` installs them")
    return found


@pytest.mark.real
def test_what_is_shipped_is_what_the_sources_give(node: str, tmp_path: Path) -> None:
    subprocess.run([node, PAGE / "build.mjs", tmp_path], check=True, timeout=120)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_bytes() for path in (PAGE / "built").iterdir()}
    assert built == shipped, "run `node actors/console/page/build.mjs`"


@pytest.mark.real
def test_the_sources_keep_their_types(node: str) -> None:
    compiler = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run([node, compiler, "--project", PAGE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


async def test_long_texts_are_compressed_for_who_takes_that(autojump_clock):
    (script,) = (PAGE / "built").glob("*.js")
    async with start_server(app, settings=QUIET) as server:
        plain = await server.request("GET", f"/console/assets/{script.name}")
        small = await server.request(
            "GET", f"/console/assets/{script.name}", headers={"accept-encoding": "br, gzip, deflate"}
        )
        assert plain.body == script.read_bytes()
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(small.body) == plain.body
        assert len(small.body) < len(plain.body) / 2
        assert small.headers["vary"] == plain.headers["vary"] == "accept-encoding"
        assert small.headers["etag"] != plain.headers["etag"]
        known = {"accept-encoding": "gzip", "if-none-match": small.headers["etag"]}
        again = await server.request("GET", f"/console/assets/{script.name}", headers=known)
        assert (again.status, again.body) == (304, b"")
        index = await server.request("GET", "/console/", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in index.headers
