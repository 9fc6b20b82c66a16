"""Claims about the command `heliograph`: its options, its ready line, and what it says when something is wrong."""

from __future__ import annotations

import errno
import gc
import importlib.metadata
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import runtime.cli
import runtime.server
from runtime.cli import main

LAMP = """
import attrs
from runtime import App, Response

@attrs.frozen
class Settings:
    sources_enabled: bool = True
    test_routes: bool = False

@attrs.frozen
class Env:
    settings: Settings

async def hello(request, env):
    return Response.text("hello")

app = App(env=Env, settings=Settings, routes={"/": hello})

@attrs.frozen
class Bare:
    pass

bare = App(env=Bare, routes={"/": hello})
"""


class Served:
    """Stands in for the server: keeps what it was given, says it is ready, and returns or raises."""

    def __init__(self):
        self.config = self.settings = self.error = None

    async def __call__(self, app, *, config, settings, platform, ready):
        self.config, self.settings = config, settings
        if self.error is not None:
            raise self.error
        ready(f"http://{config.host}:{config.port or 40000}")


@pytest.fixture
def served(monkeypatch):
    fake = Served()
    monkeypatch.setattr(runtime.server, "serve", fake)
    monkeypatch.setattr(runtime.cli, "configure_logging", lambda *_: None)
    thresholds = gc.get_threshold()
    yield fake
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "lamp.py").write_text(LAMP)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("lamp", None)


def heliograph(*args):
    return CliRunner().invoke(main, args, prog_name="heliograph")


def test_the_version_is_the_distributions():
    result = heliograph("--version")
    assert result.output == f"heliograph, version {importlib.metadata.version('heliograph')}\n"


def test_defaults_are_those_of_the_issue(served, here):
    assert heliograph("serve", "lamp:app").exit_code == 0
    assert (served.config.host, served.config.port, served.config.data) == ("127.0.0.1", 8787, Path("data"))
    assert (served.settings.sources_enabled, served.settings.test_routes) == (True, False)


def test_the_ready_line_says_where_and_is_followed_by_what_to_try_next(served, here):
    lines = heliograph("serve", "--port", "0").output.splitlines()
    assert lines[0] == "listening on http://127.0.0.1:40000"
    assert any(" tail http://127.0.0.1:40000" in line for line in lines)
    assert any(" publish http://127.0.0.1:40000 --type " in line for line in lines)


def test_hints_leave_out_the_default_url(served, here):
    assert "tail\n" in heliograph("serve").output


def test_an_app_of_ones_own_gets_no_hints_about_the_signal_service(served, here):
    assert heliograph("serve", "lamp:app").output == "listening on http://127.0.0.1:8787\n"


def test_options_win_over_the_file(served, here):
    (here / "other.toml").write_text("[server]\nport = 1\nhost = '127.0.0.2'\nconnections = 5\n")
    result = heliograph("serve", "lamp:app", "--config", "other.toml", "--port", "2", "--data", "there")
    assert result.exit_code == 0, result.output
    assert (served.config.host, served.config.port, served.config.connections) == ("127.0.0.2", 2, 5)
    assert served.config.data == Path("there")


def test_heliograph_toml_of_the_working_directory_is_used(served, here):
    (here / "heliograph.toml").write_text("sources_enabled = false\n[server]\nport = 9\n")
    assert heliograph("serve", "lamp:app").exit_code == 0
    assert served.config.port == 9
    assert served.settings.sources_enabled is False


def test_flags_switch_the_settings(served, here):
    assert heliograph("serve", "lamp:app", "--no-sources", "--test-routes").exit_code == 0
    assert (served.settings.sources_enabled, served.settings.test_routes) == (False, True)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["lamp:bare", "--no-sources"], "--no-sources does nothing for lamp:bare: its settings have no"),
        (["lamp:bare", "--test-routes"], "--test-routes does nothing for lamp:bare"),
        (["lamp"], "APP is 'lamp'; it must be module:app"),
        (["lamb:app"], "APP is 'lamb:app': no module 'lamb'"),
        (["lamp:lamp"], "it has no 'lamp'; the module's apps: app, bare"),
        (["lamp:hello"], "'hello' is a function, not an App; the module's apps: app, bare"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--port", "70000"], "0<=x<=65535"),
        (["lamp:app", "--host", "0.0.0.0"], "listening for other machines needs authentication"),
        (["lamp:app", "--config", "bad.toml"], "server.prot: unknown key; did you mean 'port'?"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_with_status_2(served, here, args, expected):
    (here / "bad.toml").write_text("[server]\nprot = 1\n")
    result = heliograph("serve", *args)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_mistake_inside_the_app_keeps_its_traceback(served, here):
    (here / "lamp.py").write_text("import nothing_of_this_name\n")
    result = heliograph("serve", "lamp:app")
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EADDRINUSE, "127.0.0.1:8787 is in use"), (errno.EADDRNOTAVAIL, "127.0.0.1 is no address of this machine")],
)
def test_an_address_that_cannot_be_used_is_explained_with_status_1(served, here, number, expected):
    served.error = ExceptionGroup("nursery", [OSError(number, "x")])
    result = heliograph("serve", "lamp:app")
    assert result.exit_code == 1
    assert expected in result.stderr


def test_a_fault_of_the_program_is_not_hidden(served, here):
    served.error = RuntimeError("boom")
    assert heliograph("serve", "lamp:app").exception is served.error


def entry_point(monkeypatch, value):
    point = importlib.metadata.EntryPoint("wave", value, runtime.cli.COMMANDS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: importlib.metadata.EntryPoints([point]))


@click.command()
def wave():
    click.echo("waving")


def test_installed_packages_add_commands(monkeypatch):
    module = type(sys)("waves")
    module.wave = wave
    monkeypatch.setitem(sys.modules, "waves", module)
    entry_point(monkeypatch, "waves:wave")
    assert heliograph("wave").output == "waving\n"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("nothing_of_this_name:wave", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("os:path", "it is a module, not a click command"),
    ],
)
def test_a_command_that_cannot_be_loaded_says_why_and_the_others_go_on(monkeypatch, value, why):
    entry_point(monkeypatch, value)
    help_text = heliograph("--help")
    assert help_text.exit_code == 0
    assert "serve" in help_text.output
    result = heliograph("wave", "--any", "thing")
    assert result.exit_code == 1
    assert why in result.stderr


def test_an_unknown_command_is_refused():
    assert heliograph("wavee").exit_code == 2


@pytest.mark.real
def test_starting_the_command_imports_no_app():
    code = "import sys, runtime.cli; print(sorted(name for name in sys.modules if name.split('.')[0] == 'actors'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


def start(here, *args):
    command = [sys.executable, "-m", "runtime", "serve", "lamp:app", "--data", str(here / "data"), *args]
    return subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        return process.communicate(timeout=30)
    finally:
        process.kill()


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_politely(here, number):
    process = start(here, "--port", "0")
    try:
        assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
        process.send_signal(number)
    finally:
        _, errors = finish(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.real
def test_a_port_in_use_is_named_without_a_traceback(here):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(here, "--port", str(port))
        output, errors = finish(process)
    assert (process.returncode, output) == (1, "")
    assert f"127.0.0.1:{port} is in use" in errors
    assert "Traceback" not in errors


@pytest.mark.real
def test_a_second_server_on_the_same_data_is_refused_in_words(here):
    first = start(here, "--port", "0")
    try:
        assert first.stdout.readline().startswith("listening on ")
        second = start(here, "--port", "0")
        output, errors = finish(second)
    finally:
        first.terminate()
        finish(first)
    assert (second.returncode, output) == (1, "")
    assert str(first.pid) in errors
    assert "Traceback" not in errors
