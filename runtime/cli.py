"""The command `heliograph`: `serve` here, others from `runtime.commands` and the entry points `heliograph.commands`."""

from __future__ import annotations

import errno
import functools
import gc
import importlib
import importlib.metadata
import os
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import click
import trio

from runtime import limits
from runtime.commands.backup import backup
from runtime.commands.inspect import inspect
from runtime.commands.options import UnusableError
from runtime.commands.restore import restore
from runtime.commands.sim import sim
from runtime.config import ConfigError, ServerConfig, check_exposure, load_config
from runtime.log import configure_logging
from runtime.storage.store import StoreUnusable
from runtime.transport.certificate import CertificateUnusable

if TYPE_CHECKING:
    from runtime.app import App

COMMANDS = "heliograph.commands"
DEFAULT_APP = "actors.app:app"
DEFAULT_CONFIG = Path("heliograph.toml")
DEFAULT_PORT = attrs.fields(ServerConfig).port.default
COLLECTOR = (2_000, 0, 25_000)
"""The thresholds of the cyclic collector.

It looks at the objects of every connection and every actor although next to none of them is garbage: with its own
thresholds it more than halves the rate at which clients can connect. The first two bound its pauses, to 2,000 and 4,000
new objects, however many there are: after a broadcast none of them is in the processor's cache, and 30,000 took 80 ms.
The third says how often it looks at all of them: after 100 million more.
"""


class _Commands(click.Group):
    """The commands of this module, and those that installed packages add; those are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(point.name for point in _entry_points())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for point in _entry_points():
            if point.name == cmd_name:
                return _load_command(point)
        return None


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=COMMANDS)


def _load_command(point: importlib.metadata.EntryPoint) -> click.Command:
    try:
        command = point.load()
    except Exception as error:  # noqa: BLE001 -- whatever an import raises, the other commands go on
        return _broken_command(point, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        return _broken_command(point, f"it is a {type(command).__name__}, not a click command")
    return command


def _broken_command(point: importlib.metadata.EntryPoint, why: str) -> click.Command:
    """Stands in the list for a command that cannot be loaded, and says why when it is used."""

    @click.command(
        point.name,
        short_help="(cannot be loaded)",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def broken() -> None:
        raise click.ClickException(f"the command {point.name!r} ({point.value}) cannot be loaded: {why}")

    return broken


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heliograph", prog_name="heliograph")
def main() -> None:
    """A Durable Objects runtime on Trio, and a live signal service on top of it."""


for command in (backup, inspect, restore, sim):
    main.add_command(command)


@main.command()
@click.argument("app", default=DEFAULT_APP, metavar="[APP]")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=f"Configuration file.  [default: {DEFAULT_CONFIG}, if there is one]",
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help=f"TCP port; 0 picks a free one.  [default: {DEFAULT_PORT}]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of everything durable.  [default: ./data]",
)
@click.option("--no-sources", is_flag=True, help="Ask no source for signals.")
@click.option("--faults", is_flag=True, help="Let operators make things fail on purpose, in the console.")
@click.option("--test-routes", is_flag=True, help="Add the echo WebSocket /_test/echo, for conformance tools.")
def serve(
    app: str,
    config_path: Path | None,
    host: str | None,
    port: int | None,
    data: Path | None,
    no_sources: bool,
    faults: bool,
    test_routes: bool,
) -> None:
    """Serve APP (module:app), the signal service by default, until SIGTERM or Ctrl-C.

    Options win over the configuration file.
    """
    loaded = _load_app(app)
    if config_path is None and DEFAULT_CONFIG.is_file():
        config_path = DEFAULT_CONFIG
    try:
        config, settings = load_config(config_path, loaded.settings)
        config = attrs.evolve(
            config,
            host=config.host if host is None else host,
            port=config.port if port is None else port,
            data=config.data if data is None else data,
        )
        if no_sources:
            settings = _switch(settings, "sources_enabled", on=False, option="--no-sources", app=app)
        if test_routes:
            settings = _switch(settings, "test_routes", on=True, option="--test-routes", app=app)
        check_exposure(config, settings)
    except ConfigError as error:
        raise UnusableError(str(error)) from error
    configure_logging(config.log_level, config.log_format)
    _run(loaded, config, settings, faults=faults, hints=app == DEFAULT_APP)


def _load_app(name: str) -> App:
    from runtime.app import App

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise click.UsageError(f"APP is {name!r}; it must be module:app, such as {DEFAULT_APP}")
    # An app beside the person who types the command is found, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a mistake inside the app: its traceback says where
        raise click.UsageError(f"APP is {name!r}: no module {error.name!r} here or among the installed") from error
    finally:
        sys.path.pop(0)
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        apps = sorted(key for key, value in vars(module).items() if isinstance(value, App))
        seen = f"{attribute!r} is a {type(app).__name__}, not an App" if app is not None else f"it has no {attribute!r}"
        raise click.UsageError(f"APP is {name!r}: {seen}; the module's apps: {', '.join(apps) or 'none'}")
    return app


def _switch(settings: Any, field: str, *, on: bool, option: str, app: str) -> Any:
    if field not in attrs.fields_dict(type(settings)):
        raise ConfigError(f"{option} does nothing for {app}: its settings have no {field!r}; leave the option out")
    return attrs.evolve(settings, **{field: on})


def _run(app: App, config: ServerConfig, settings: Any, *, faults: bool, hints: bool) -> None:
    from runtime.platform import real_platform
    from runtime.server import serve as run_server

    gc.set_threshold(*COLLECTOR)
    _allow_descriptors(config.connections)

    def ready(url: str) -> None:
        gc.collect()
        gc.freeze()  # what start-up made stays for ever and need not be looked at again
        click.echo(f"listening on {url}")
        if hints:
            click.echo(_what_next(url, default=config.port == DEFAULT_PORT and config.host == "127.0.0.1"))
        sys.stdout.flush()

    serving = functools.partial(run_server, app, config=config, settings=settings, ready=ready)
    platform = real_platform()
    if faults:
        from runtime.faults import with_faults

        platform, may_fail = with_faults(platform, functools.partial(os.kill, os.getpid(), signal.SIGKILL))
        serving = functools.partial(serving, faults=may_fail)
    serving = functools.partial(serving, platform=platform)
    try:
        trio.run(serving)
    except Exception as error:
        text = _explain(error, config)
        if text is None:
            raise
        raise click.ClickException(text) from error


def _allow_descriptors(connections: int) -> None:
    """Raise the soft limit of open files, 1,024 as a rule, to what the connections need, as far as is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    objects = 4 * limits.OPEN_OBJECTS  # of SQL classes: a database, its log, its index, and what syncs them
    wanted = connections + objects + 256  # the database, the listener, standard streams, what sources open
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _what_next(url: str, *, default: bool) -> str:
    command = _own_command()
    target = "" if default else f" {url}"
    data = """'{"p":1}'"""
    return (
        f"  look     {url}/ in a browser\n"
        f"  follow   {command} tail{target}\n"
        f"  publish  {command} publish{target} --type alert.high --entity btc-usd --data {data}\n"
        f"  stop     Ctrl-C"
    )


def _own_command() -> str:
    """How the person at the terminal can call this program again."""
    program = Path(sys.argv[0]).absolute()
    if program.name != "heliograph":
        return f"{shlex.quote(os.path.relpath(sys.executable))} -m runtime"
    found = shutil.which("heliograph")
    if found is not None and Path(found).absolute() == program:
        return "heliograph"
    return shlex.quote(os.path.relpath(program))


def _explain(error: Exception, config: ServerConfig) -> str | None:
    """What a person can do about it, or None for a fault of the program, whose traceback is wanted."""
    leaves = list(_leaves(error))
    if len(leaves) != 1:
        return None
    (leaf,) = leaves
    if isinstance(leaf, StoreUnusable):
        return str(leaf)
    if isinstance(leaf, CertificateUnusable):
        return f"[tls] {leaf}"
    address = f"{config.host}:{config.port}"
    if isinstance(leaf, OSError) and leaf.errno == errno.EADDRINUSE:
        return f"{address} is in use, perhaps by another heliograph; stop it, or choose --port (0: any free one)"
    if isinstance(leaf, OSError) and leaf.errno == errno.EADDRNOTAVAIL:
        return f"{config.host} is no address of this machine; choose one with --host"
    return None


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
