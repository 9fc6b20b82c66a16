"""What the documentation shows is run, and what it lists is complete."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from types import ModuleType

import attrs
import click
import pytest
import trio
import trio.testing

import runtime
from actors.settings import Settings, SourceSettings
from runtime import Actor, AlarmInfo, App, Request, Response, Secret, limits
from runtime.cli import main
from runtime.config import ProxyConfig, ServerConfig, ServerTable, TlsConfig, load_config
from runtime.testing import start_server

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "testing-an-actor"
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
    settings = Settings
    for number, (kind, name, language, text) in enumerate(blocks(page)):
        match kind:
            case "file":
                (tmp_path / name).write_text(text)
                importlib.invalidate_caches()
                sys.modules.pop(name.removesuffix(".py"), None)
                module = importlib.import_module(name.removesuffix(".py"))
                settings = getattr(getattr(module, "app", None), "settings", settings)
            case "test":
                run_tests(text, f"{page.stem}_{number}", tmp_path)
            case "config":
                path = tmp_path / "heliograph.toml"
                path.write_text(text)
                load_config(path, settings)
            case "client":
                check_imports(text)
            case "example":
                shown = (EXAMPLE / name).read_text(encoding="utf-8")
                assert text in shown, f"block {number} is not what {name} says"
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


@pytest.mark.parametrize("name", ["serve", "tail", "publish", "token", "inspect", "restore", "backup"])
def test_the_reference_names_every_option(name):
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## heliograph {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert options(command) == set(OPTION.findall("\n".join(re.findall(r"^\| (.*)$", section, re.MULTILINE))))


def script(name: str) -> ModuleType:
    """A script of the docs as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_modules_is_what_the_modules_say():
    module_table = script("module_table")
    page = module_table.PAGE.read_text(encoding="utf-8")
    assert page == module_table.written(page), "run: python docs/module_table.py"


REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))


@pytest.mark.parametrize("page", REFERENCE, ids=page_id)
def test_the_tables_of_the_reference_are_what_the_code_says(page):
    text = page.read_text(encoding="utf-8")
    assert text == script("member_tables").written(text), "run: python docs/member_tables.py"


def test_the_reference_names_every_name_of_the_front_door():
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    assert [name for name in runtime.__all__ if not re.search(rf"`{name}\b", text)] == []


def test_the_reference_names_every_public_member_of_the_front_door():
    tables = script("member_tables")
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    named = {member for page in REFERENCE for member in tables.shown(page.read_text(encoding="utf-8"))}
    missing = {
        (cls, member)
        for cls in [*runtime.__all__, *tables.OTHERS]
        if isinstance(tables.class_of(cls), type) and not issubclass(tables.class_of(cls), Exception)
        for member in tables.members(cls)
        if (cls, member) not in named and not re.search(rf"`{member}`", text)
    }
    assert missing == set()


def test_the_reference_names_the_fields_of_the_values_of_the_front_door():
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    values = [AlarmInfo, App, Request, Response, Secret]
    assert [name for cls in values for name in attrs.fields_dict(cls) if f"`{name}`" not in text] == []


def test_the_reference_names_the_settings_of_an_actor_class_with_their_defaults():
    page = (ROOT / "docs" / "reference" / "actor.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page.partition("<!-- settings -->")[2], re.MULTILINE))
    settings = {name: value for name, value in vars(Actor).items() if not name.startswith("_") and not callable(value)}
    assert {name: literal_eval(value) for name, value in shown.items()} == settings


def test_the_reference_names_the_options_of_the_test_server():
    page = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
    section = page.partition("<!-- start_server -->")[2].partition("\n## ")[0]
    options = [name for name in inspect.signature(start_server).parameters if name != "app"]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == options
    assert [name for name in runtime.testing.__all__ if f"`{name}" not in page] == []


def test_the_comparison_names_every_recorded_program_that_differs():
    page = (ROOT / "docs" / "explanation" / "compared-with-cloudflare.md").read_text(encoding="utf-8")
    table = (ROOT / "tests" / "conformance" / "differences.md").read_text(encoding="utf-8")
    programs = set(re.findall(r"^\| ([a-z-]*[a-z]) \|", table, re.MULTILINE)) - {"scenario"}
    section = page.partition("## Where a recorded program ends differently")[2].partition("\n## ")[0]
    named = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`([a-z-]+)`", named)) == programs


def test_the_comparison_has_the_numbers_of_the_code():
    page = (ROOT / "docs" / "explanation" / "compared-with-cloudflare.md").read_text(encoding="utf-8")
    section = page.partition("<!-- limits -->")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\|[^|]*\| ([\d,]+)[^|]*\| `(\w+)` \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n|") - 2
    assert {name: int(number.replace(",", "")) for number, name in rows} == {
        name: getattr(limits, name) for _, name in rows
    }


def keys(cls: type, prefix: str = "") -> dict[str, object]:
    """Every key of a settings class with its default."""
    found: dict[str, object] = {}
    for field in attrs.fields(attrs.resolve_types(cls)):
        if attrs.has(field.type):
            found |= keys(field.type, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = field.default
    return found


ALL_KEYS = (
    keys(ServerTable, "server.")
    | keys(TlsConfig, "tls.")
    | keys(ProxyConfig, "proxy.")
    | keys(Settings)
    | keys(SourceSettings, "sources.")
)
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
def test_the_example_project_runs_where_only_heliograph_is_installed(tmp_path):
    """As a project outside of this one would: its own configuration, and the fixtures of the installed plugin."""
    project = shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{(project / 'test_auction.py').read_text().count('async def test_')} passed" in done.stdout


@pytest.mark.real
def test_a_suite_that_does_not_use_the_plugin_does_not_import_the_runtime(tmp_path):
    (tmp_path / "test_bare.py").write_text("import sys\n\n\ndef test_x():\n    assert 'runtime' not in sys.modules\n")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
