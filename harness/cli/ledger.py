"""``harness ledger``: which layers to leave in FP32."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.output import print_json
from harness.cli.run import with_flags
from harness.cli.tell import tell

_OF_NO_USE = {
    "overhead_check": "nothing watches while a side has its turn",
    "operators": "both precisions are profiled anyway",
    "require": "a ledger is about layers",
    "idle_s": "no meter is read in a duel",
    "iterations": "a duel counts rounds",
}
MISSED = 1


@click.command("ledger", short_help="Which layers to leave in FP32, and what it brings.")
@with_flags
@click.option(
    "--accuracy-drop", metavar="PERCENT",
    help="Largest loss of answers against FP32 that the mixed model may have, such as 0.5%.",
)  # fmt: skip
@click.option(
    "--speed", metavar="SHARE", help="Least share of INT8's speed that it shall keep, such as 0.9."
)
@click.option("--layers", type=click.IntRange(1, 64), default=None, metavar="N",
              help="Layers to measure, after screening. Default: 8.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the ledger alone, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    accuracy_drop: str | None,
    speed: str | None,
    layers: int | None,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> int:
    """Weigh every layer of an INT8 model: the time it saves, and the answers it costs.

    Screens all layers by operator times and error, counts the answers of the suspicious ones on one
    half of the samples, lets the INT8 model with each of them in FP32 take turns with it, writes
    the mixed model that follows (mixed.onnx), and proves it in a duel on the other half.

    \b
      harness ledger --model net.onnx --dataset labelled.npz --calibration in.npz
      harness ledger --model digits --accuracy-drop 0.5% --speed 0.9

    Ends with 1 where what --accuracy-drop or --speed asks for is missed for certain.
    """
    from harness import spec as specs
    from harness.errors import UsageError
    from harness.ledger.choose import MOST_LAYERS
    from harness.ledger.measure import Asked, ledger
    from harness.spec import flag, parsers

    for name, why in _OF_NO_USE.items():
        if values.get(name):
            raise UsageError(f"{flag(name)} in a ledger: {why}", "leave it out")
    values["precision"] = values.get("precision") or "int8"
    spec = specs.parse(values)
    asked = Asked(
        drop=None if accuracy_drop is None
        else parsers.parse_percentage("--accuracy-drop", accuracy_drop, 0.0, 1.0),
        speed=None if speed is None else parsers.number(0.01, 10.0)("--speed", speed),
        most_layers=layers or MOST_LAYERS,
    )  # fmt: skip
    follow = (lambda text: None) if quiet or as_json else (lambda text: click.echo(text, err=True))
    launches = spec.launches if values.get("launches") is not None else None
    outcome = ledger(spec, asked, follow, launches)
    if as_json:
        print_json(outcome.ledger)
    elif not quiet:
        from harness.views.ledger import render_ledger
        from harness.views.terminal import print_out
        from harness.views.text import plain

        print_out(render_ledger(outcome.ledger), 120)
        click.echo(f"Files: {plain(outcome.folder)}")
    missed = [wish for wish in outcome.ledger.wishes if wish.outcome == "missed"]
    for wish in missed:
        tell(f"--{wish.name.replace(' ', '-')} {wish.wanted:g}: nothing measured here reaches it")
    return MISSED if missed else 0
