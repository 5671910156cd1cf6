"""``harness build``: make what a run would load, and run nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import print_json
from harness.cli.run import flags_with
from harness.cli.tell import tell
from harness.spec.fields import BUILDING

if TYPE_CHECKING:
    from harness.models.making import Building


@click.command("build", short_help="Make an engine or artifact, and run nothing.")
@flags_with({}, only=(*BUILDING, "device"))
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="ARCH",
    help="An architecture to build for, such as sm89, of a backend with the option targets.",
)
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Where it goes; none: tried alone."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was built alone, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    targets: tuple[str, ...], output: str | None, as_json: bool, quiet: bool, **values: Any
) -> int:
    """Make what a run of the model would load: the quantized graph, the program, the engine.

    Nothing is run, so the device need not be here, where the backend builds without one. What the
    runtime's parser refuses is listed node by node (exit code 2). harness run --artifact FILE
    measures it, here or elsewhere.

    \b
      harness build --model net.onnx --backend tensorrt-rtx --target sm89 -o net
      harness build --model resnet18 --precision int8 -o resnet18.int8
    """
    from harness import spec as specs
    from harness.models.making import build

    if targets:
        values["options"] = (*values["options"], f"targets={','.join(targets)}")
    made = build(specs.parse(values), Path(output) if output else None)
    if as_json:
        print_json(made)
    elif not quiet:
        _show(made)
    if made.error is not None:
        tell(" ".join(f"{made.error.message}; {made.error.remedy}".strip("; ").split()))
        return made.error.exit_code
    return 0


def _show(made: Building) -> None:
    from harness.views.build import render_build
    from harness.views.terminal import print_out

    print_out(render_build(made), 100)
