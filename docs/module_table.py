"""Writes the table of modules in `explanation/architecture.md` from the first sentences of their docstrings.

Run `python docs/module_table.py` after adding a module or changing what it is for; a test compares.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN, END = "<!-- modules -->\n", "<!-- /modules -->"


def written(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """The floors of the runtime from the top down, then the service."""
    rows = ["| floor | module | its job |", "|---|---|---|"]
    for floor, path in _modules():
        sentence = _first_sentence(path)
        if sentence:
            rows.append(f"| {floor} | `{path.relative_to(ROOT)}` | {sentence} |")
    return "\n".join(rows) + "\n"


def _modules() -> Iterator[tuple[str, Path]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    yield "front door", ROOT / "runtime" / "__init__.py"
    for layer in layers:
        for name in layer.split(" | "):
            top = ROOT / "runtime" / name
            paths = sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]
            for path in paths:
                yield name, path
    for path in sorted((ROOT / "actors").rglob("*.py")):
        yield "service", path


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0].replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
