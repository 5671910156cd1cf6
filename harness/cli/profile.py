"""``harness profile``: where the time of an inference goes, operator by operator."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from harness.cli.output import print_json
from harness.cli.run import events, live, near, with_flags
from harness.cli.tell import tell

_SECONDS = "1"  # of the timed window that the table is reconciled with, unless somebody says more
_WINDOW = ("duration_s", "iterations", "precision_goal", "max_duration_s")


@click.command("profile", short_help="Where the time goes, operator by operator.")
@with_flags
@click.option("--all", "everything", is_flag=True, help="Print every operator, not the slowest 20.")
@click.option("--json", "as_json", is_flag=True, help="Print the result alone, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--no-tensorboard", is_flag=True, help="Write no TensorBoard events.")
def command(
    everything: bool, as_json: bool, quiet: bool, no_tensorboard: bool, **values: Any
) -> int:
    """Say where the time of an inference goes: operators, their precision, operations and roof.

    As harness run --operators, with a timed window of one second unless you say otherwise. The
    operators are profiled after the window and never in it, in a session of the runtime's own
    profiler; what that costs is printed.

    \b
      harness profile --model resnet18 --precision int8
      harness profile --model net.onnx --threads 1 --launches 5
      harness profile --model resnet18 --backend pytorch
    """
    from harness import spec as specs
    from harness.engine import driver
    from harness.maybe import Unavailable, explain

    if not any(values.get(name) is not None for name in _WINDOW):
        values["duration_s"] = _SECONDS
    spec = specs.parse({**values, "operators": True})
    with ExitStack() as cleared:
        outcome = driver.run(
            spec,
            lambda folder: [
                *live(cleared, None, wanted=not (quiet or as_json)),
                *events(folder, spec, wanted=not no_tensorboard),
            ],
        )
    found = outcome.result.operators
    if as_json:
        print_json(outcome.result)
    elif not quiet:
        from harness.views.operators import SHOWN, render_operators
        from harness.views.terminal import print_out
        from harness.views.text import plain

        if not isinstance(found, Unavailable):
            print_out(render_operators(outcome.result, None if everything else SHOWN), 120)
        click.echo(f"Files: {plain(near(outcome.folder))}")
    for text in [*outcome.problems, *outcome.missing]:
        tell(" ".join(text.split()))
    if outcome.exit_code:
        error = outcome.result.error
        fail = next((c.reason for c in outcome.result.validity if c.verdict == "fail"), "")
        tell(error.message if error else fail or "the run failed")
        return outcome.exit_code
    if isinstance(found, Unavailable):
        tell(f"{spec.model} on {spec.backend} has no table of operators: {explain(found)}")
        return 3
    return 0
