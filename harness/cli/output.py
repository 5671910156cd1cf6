"""Options and printing that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON alone on stdout."
)
results_option: Callable[[Any], Any] = click.option(
    "--results",
    default="results",
    show_default=True,
    metavar="DIR",
    help="Where ids are looked up.",
)


def print_json(record: Any) -> None:
    """Print ``record`` (a Struct, or dicts and lists of them) as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(record), indent=2))
