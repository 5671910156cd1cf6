"""``harness capacity``: how many requests a second, while latency holds its bounds?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import print_json
from harness.cli.run import with_flags
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.engine.driver.sinks import Sink
    from harness.records.capacity import CapacityFound
    from harness.spec import RunSpec

_POINTS = 3  # of the curve below the answer
_OF_NO_USE = {
    "scenario": "it is one of server runs",
    "rate": "the rate is what is sought",
    "iterations": "a probe has a length: --duration",
}


@click.command("capacity", short_help="Find the highest rate that holds a latency bound.")
@with_flags
@click.option(
    "--probes",
    default="8",
    metavar="N",
    help="At most so many server runs. 0: predict. Default: 8.",
)
@click.option(
    "--curve",
    metavar="N",
    help="So many server runs at even steps below the answer, for the curve. Default: 3, and "
    "none where nothing is probed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found alone, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--no-tensorboard", is_flag=True, help="Write no TensorBoard events.")
def command(
    probes: str, curve: str | None, as_json: bool, quiet: bool, no_tensorboard: bool, **values: Any
) -> int:
    """Find the highest rate of requests at which latency, from due, holds every --latency-bound.

    A closed loop's service times predict it (Lindley's recursion); server runs near the answer
    (probes of --duration, 5 s) correct that, until it is known to 6 %. A few more below it
    (--curve) show latency, utilization and energy over the rate.

    \b
      harness capacity --latency-bound p99=10ms
      harness capacity --latency-bound p50=2ms --latency-bound p99=9ms
    """
    from harness import spec as specs
    from harness.engine.driver.capacity import capacity
    from harness.errors import UsageError
    from harness.spec import parse_int

    for name, why in _OF_NO_USE.items():
        if values.get(name):
            raise UsageError(f"{specs.flag(name)} for a capacity: {why}", "leave it out")
    traced = (values.get("arrivals") or "").startswith("file:")
    values |= {"scenario": "server", "rate": None if traced else "1"}
    spec = specs.parse(values)
    most = parse_int("--probes", probes, 0, 50)
    points = _POINTS * (most > 0) if curve is None else parse_int("--curve", curve, 0, 50)
    outcome = capacity(
        spec,
        most,
        lambda folder, one: _events(folder, one, wanted=not no_tensorboard),
        _Following(live=not (quiet or as_json), events=not no_tensorboard).update,
        points,
    )
    if as_json:
        print_json(outcome.found)
    elif not quiet:
        from harness.views.capacity import render_capacity
        from harness.views.terminal import print_out
        from harness.views.text import plain

        print_out(render_capacity(_plain(outcome.found)))
        click.echo(f"Files: {plain(outcome.folder)}")
    for text in outcome.problems:
        tell(" ".join(text.split()))
    return outcome.exit_code


def _plain(found: CapacityFound) -> dict[str, Any]:
    """Plain data, which a view may know."""
    import msgspec

    rows: dict[str, Any] = msgspec.to_builtins(found)
    return rows


def _events(folder: Path, spec: RunSpec, *, wanted: bool) -> list[Sink]:
    if not wanted:
        return []
    from harness.tensorboard.live import TensorBoardSink

    return [TensorBoardSink(folder, spec)]


class _Following:
    """A line after each server run, and the curve in TensorBoard."""

    def __init__(self, *, live: bool, events: bool) -> None:
        self._live, self._wants_events = live, events
        self._told = 0

    def update(self, folder: Path, found: CapacityFound) -> None:
        from harness.views.capacity import run_line

        rows, made = _plain(found), len(found.probes) + len(found.curve)
        if self._live and made > self._told:
            self._told = made
            click.echo(run_line(rows), err=True)
        if self._wants_events and found.ended != "going on":
            from harness.tensorboard.capacity import write_curve

            write_curve(folder, rows)
