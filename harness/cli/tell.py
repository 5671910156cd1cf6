"""The border to stderr: every line that a command says there goes through here."""

from __future__ import annotations

import click

from harness.text import visible


def tell(text: object, prefix: str = "harness: ") -> None:
    """One line on stderr, whatever the text holds of files and models that came from elsewhere."""
    click.echo(f"{prefix}{visible(text)}", err=True)
