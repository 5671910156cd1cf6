"""Options and printing that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click
import msgspec

from harness.cli.tell import tell

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON alone on stdout."
)


class AliasedOption(click.Option):
    """The first of its names is the one that help shows; earlier ones go on working."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def results_folder(help: str, *earlier: str, name: str = "results") -> Callable[[Any], Any]:
    """``--results DIR``, also under the ``earlier`` names of it, as the parameter ``name``."""
    return click.option(
        "--results",
        *earlier,
        name,
        cls=AliasedOption,
        default="results",
        show_default=True,
        metavar="DIR",
        help=help,
    )


results_option = results_folder("Where ids are looked up.")


def say_written(path: str | os.PathLike[str], data: bytes) -> None:
    """On stderr: stdout is for what other programs read."""
    from harness.views.text import size

    tell(f"wrote {os.fspath(path)} ({size(len(data))})", prefix="")


# what JSON leaves as it is, and terminals obey
_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def print_json(record: Any) -> None:
    """Print ``record`` (a Struct, or dicts and lists of them) as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=2).decode()
    click.echo(_UNSAFE.sub(lambda one: f"\\u{ord(one[0]):04x}", text))
