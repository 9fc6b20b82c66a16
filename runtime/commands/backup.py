"""`heliograph backup`: copy a data directory, while a server runs on it or not."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import UnusableError, data_option
from runtime.platform import real_platform
from runtime.storage.data_copy import back_up
from runtime.storage.store import StoreUnusable


@click.command("backup")
@click.argument("destination", type=click.Path(path_type=Path))
@data_option
def backup(destination: Path, data: Path) -> None:
    """Copy everything durable, and its history, to the new folder DESTINATION; a server may run meanwhile.

    `heliograph restore --from DESTINATION` puts it in place.
    """
    try:
        size = back_up(data, destination, real_platform().now)
    except StoreUnusable as error:
        raise UnusableError(str(error)) from error
    click.echo(f"{destination}: {size:,} bytes")
