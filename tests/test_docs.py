"""What the documentation shows is run, and what it lists is complete."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import attrs
import click
import pytest
import trio
import trio.testing

from actors.settings import Settings, SourceSettings
from runtime.cli import main
from runtime.config import ServerConfig, load_config

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?:<!-- ([a-z]+)(?:: ([\w.]+))? -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
OPTION = re.compile(r"--[a-z][a-z-]*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[str, str, str, str]]:
    """Each fenced block of a page: what to do with it, a name, its language, its text."""
    return [tuple(match.groups(default="")) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_what_a_page_shows_runs(page, tmp_path, monkeypatch):
    """Files are saved, tests are run in virtual time, configuration is loaded; in the order of the page."""
    monkeypatch.syspath_prepend(tmp_path)
    for number, (kind, name, language, text) in enumerate(blocks(page)):
        match kind:
            case "file":
                (tmp_path / name).write_text(text)
                importlib.invalidate_caches()
                sys.modules.pop(name.removesuffix(".py"), None)
                importlib.import_module(name.removesuffix(".py"))
            case "test":
                run_tests(text, f"{page.stem}_{number}", tmp_path)
            case "config":
                path = tmp_path / "heliograph.toml"
                path.write_text(text)
                load_config(path, Settings)
            case "client":
                check_imports(text)
            case _:
                assert language != "python", f"block {number} is not run: say what it is in a comment before it"


def run_tests(text: str, name: str, folder: Path) -> None:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    tests = [value for key, value in vars(module).items() if key.startswith("test_")]
    assert tests
    for test in tests:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(test, clock, clock=clock)


def check_imports(text: str) -> None:
    for module, names in re.findall(r"^from (\S+) import (.+)$", text, re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    compile(text, "client", "exec")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_that_a_page_shows_exist(page):
    for _, _, language, text in blocks(page):
        if language not in {"console", "sh"}:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["heliograph"] and len(words) > 1 and not words[1].startswith("-"):
                command = main.get_command(click.Context(main), words[1])
                assert command is not None, line
                assert {word for word in words if OPTION.fullmatch(word)} <= options(command), line
            elif words[:1] == ["make"]:
                targets = [word for word in words[1:] if "=" not in word]
                assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets), line


def options(command: click.Command) -> set[str]:
    found = {opt for parameter in command.params for opt in parameter.opts if opt.startswith("--")}
    return found | {"--help"}


@pytest.mark.parametrize("name", ["serve", "tail", "publish"])
def test_the_reference_names_every_option(name):
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## heliograph {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert options(command) == set(OPTION.findall("\n".join(re.findall(r"^\| (.*)$", section, re.MULTILINE))))


def test_the_table_of_modules_is_what_the_modules_say():
    spec = importlib.util.spec_from_file_location("module_table", ROOT / "docs" / "module_table.py")
    module_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module_table)
    page = module_table.PAGE.read_text(encoding="utf-8")
    assert page == module_table.written(page), "run: python docs/module_table.py"


def keys(cls: type, prefix: str = "") -> dict[str, object]:
    """Every key of a settings class with its default."""
    found: dict[str, object] = {}
    for field in attrs.fields(attrs.resolve_types(cls)):
        if attrs.has(field.type):
            found |= keys(field.type, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = field.default
    return found


ALL_KEYS = keys(ServerConfig, "server.") | keys(Settings) | keys(SourceSettings, "sources.")
del ALL_KEYS["sources"]  # the array itself


def uncommented(text: str) -> str:
    """The example with its commented-out keys and tables in force; sentences stay comments."""
    return re.sub(r"^# ?(?=\[|[a-z_0-9]+ = )", "", text, flags=re.MULTILINE)


def test_the_example_says_nothing_but_the_defaults():
    example = ROOT / "heliograph.example.toml"
    assert load_config(example, Settings) == (ServerConfig(), Settings())


def test_the_example_has_every_key_with_its_default(tmp_path):
    path = tmp_path / "heliograph.toml"
    text = uncommented((ROOT / "heliograph.example.toml").read_text(encoding="utf-8"))
    path.write_text(text)
    assert load_config(path, Settings) == (ServerConfig(), Settings())
    shown = set(re.findall(r"^([a-z_0-9]+) = ", text, re.MULTILINE))
    wanted = {key.rpartition(".")[2] for key in ALL_KEYS}
    assert wanted - shown == set()


def test_the_reference_names_every_key_with_its_default():
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## .*?`\[*(\w+)\]*`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for key, default in ALL_KEYS.items():
        table, _, name = key.rpartition(".")
        row = re.search(rf"^\| `{name}` \|([^|]*)\|", sections.get(table or "top", page), re.MULTILINE)
        assert row is not None, key
        if isinstance(default, bool | int | float | str):
            shown = row[1].strip().strip('`"').replace(",", "")
            written = str(default).lower() if isinstance(default, bool) else default
            assert shown == written if isinstance(default, bool | str) else float(shown) == default, key


@pytest.mark.real
def test_the_client_of_the_readme_gets_signals(tmp_path):
    (text,) = [text for kind, _, _, text in blocks(ROOT / "README.md") if kind == "client"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    serve = [sys.executable, "-m", "runtime", "serve", "--port", "0"]
    with subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split("://")[1].strip()
            (tmp_path / "client.py").write_text(text.replace("127.0.0.1:8787", address))
            command = [sys.executable, "client.py"]
            with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as client:
                try:
                    assert "cpu" in client.stdout.readline()
                finally:
                    client.kill()
        finally:
            server.kill()
