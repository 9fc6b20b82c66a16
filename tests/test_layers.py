"""Claims about the shape of the code that import-linter cannot state: front doors, sizes, and names."""

from __future__ import annotations

import ast
from pathlib import Path

import runtime
import runtime.sim

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("runtime", "actors") for path in (ROOT / folder).rglob("*.py"))
LINES_MAX = 500


def imports(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Each import of a file: the module, and the names taken from it (none for a plain import)."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.append((node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
    return found


def test_actors_come_in_by_the_front_door():
    doors = {"runtime": set(runtime.__all__), "runtime.sim": set(runtime.sim.__all__)}
    scenarios = set((ROOT / "actors").glob("scenarios*.py"))  # the only ones that a server never imports
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}: {', '.join(names)}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "actors")
        for module, names in imports(path)
        if module.split(".")[0] == "runtime"
        and (not set(names) <= doors.get(module, set()) or (module == "runtime.sim" and path not in scenarios))
    ]
    assert wrong == []


def test_the_front_door_opens_what_it_names():
    assert sorted(set(runtime.__all__)) == sorted(runtime.__all__)
    assert [name for name in runtime.__all__ if not hasattr(runtime, name)] == []


def test_a_file_is_one_idea_and_has_at_most_500_lines():
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > LINES_MAX} == {}


def test_every_module_says_what_it_is_for():
    bare = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if (tree := ast.parse(path.read_text(encoding="utf-8"))).body and not ast.get_docstring(tree)
    ]
    assert bare == []
