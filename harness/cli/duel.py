"""``harness duel``: variants of one run take turns, and their ratio is known to a percent."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import print_json
from harness.cli.run import flags_with
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.engine.driver.duel import DuelOutcome, Standing
    from harness.engine.driver.sinks import Sink
    from harness.spec import RunSpec
    from harness.spec.variants import Variants

# what a duel has no use for, and why
_OF_NO_USE = {
    "overhead_check": "nothing watches while a side has its turn",
    "require": "a duel is about the ratio",
    "operators": "what is profiled is no turn",
}
_HELPS = {
    "launches": "Exactly K launches, each of fresh processes of all variants. Default: 5, then "
    "more until the ratio is known, 20 at most.",
    "duration_s": "How long the variants of a launch take turns, all together: exactly so long, or "
    "with --precision-goal or --max-duration at least. Default: 0.5 at least.",
    "max_duration_s": "How long they take turns in a launch at most. Default: 8.",
    "warmup_s": "Shortest warm-up; it ends when latencies are steady. Default: 0.1.",
    "precision_goal": "Stop when the ratio is known to ± this. Default: 1%.",
    "cpus": "Processors that the variants share, such as 0-3,8.",
    "seed": "Seed of drawn inputs and weights, and of the order of turns. Default: 0.",
    "out": "Where the duel's folder goes. Default: results.",
}
_OF_A_SERVER = ("rate", "arrivals", "latency_bound", "batching")
_HIDDEN = (*_OF_NO_USE, *_OF_A_SERVER, "iterations", "concurrency", "scenario")


@click.command("duel", short_help="Let variants take turns: their ratio, to a percent.")
@click.option(
    "--across",
    multiple=True,
    metavar="FIELD=A,B[,C...]",
    help="What the variants differ in, such as precision=fp32,int8; the first is the reference.",
)
@click.option(
    "--against-itself", is_flag=True, help="Measure a variant against its twin: what shows here?"
)
@click.option("--variants", "named", hidden=True)  # how a sweep names cells that take turns
@click.option("--progress-fd", type=int, hidden=True)  # how it sees inside a duel
@flags_with(_HELPS, _HIDDEN)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison alone, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--no-tensorboard", is_flag=True, help="Write no TensorBoard events.")
def command(
    across: tuple[str, ...],
    against_itself: bool,
    named: str | None,
    progress_fd: int | None,
    as_json: bool,
    quiet: bool,
    no_tensorboard: bool,
    **values: Any,
) -> int:
    """Let variants of one run take turns on the same processors, and compare them round by round.

    What the machine does to both (its clock, its other guests) leaves their ratio alone. Five
    launches of fresh processes or more, until the ratio is known to 1 % (--precision-goal);
    --launches K: exactly K. --duration and --max-duration are of the turns of one launch.

    \b
      harness duel --model resnet18 --across precision=fp32,int8
      harness duel --model net.onnx --across threads=1,2,4
      harness duel --model digits --against-itself
      harness duel --model net.onnx --across python=old/bin/python,new/bin/python
    """
    from harness.engine.driver.duel import duel, rules_of
    from harness.engine.driver.homes import homes_of

    asked = _named(values, named) if named else _variants(values, across, against_itself)
    spec = asked.specs[0]
    with ExitStack() as ending:
        following = _Following(
            live=not (quiet or as_json), events=not no_tensorboard, progress_fd=progress_fd
        )
        ending.callback(following.close)
        outcome = duel(
            asked.specs,
            asked.names,
            rules_of(spec, spec.launches if values.get("launches") is not None else None),
            lambda folder, spec: _events(folder, spec, wanted=not no_tensorboard),
            following.update,
            homes_of(asked),
        )
        following.joules(outcome)
    _show(outcome, as_json, quiet)
    for text in [*outcome.problems, *following.problems]:
        tell(" ".join(text.split()))
    if outcome.exit_code and outcome.paired.problem:
        tell(outcome.paired.problem)
    return outcome.exit_code


def _variants(values: dict[str, Any], across: tuple[str, ...], against_itself: bool) -> Variants:
    from harness.errors import UsageError
    from harness.spec import flag
    from harness.spec.variants import twins, variants

    if len(across) + against_itself != 1:
        asked = [f"--across {one}" for one in across] + ["--against-itself"] * against_itself
        raise UsageError(
            f"a duel takes one question, and here are {len(asked)}: {' and '.join(asked)}"
            if asked
            else "a duel of what with what?",
            "give either --across FIELD=A,B or --against-itself",
        )
    for name, why in _OF_NO_USE.items():
        if values.get(name):
            raise UsageError(f"{flag(name)} in a duel: {why}", "leave it out, or use harness run")
    return variants(values, across[0]) if across else twins(values)


def _named(values: dict[str, Any], told: str) -> Variants:
    from harness.spec.variants import named

    common = {name: value for name, value in values.items() if value not in (None, False, ())}
    return named(told, common)


def _events(folder: Path, spec: RunSpec, *, wanted: bool) -> list[Sink]:
    if not wanted:
        return []
    from harness.tensorboard.live import TensorBoardSink

    return [TensorBoardSink(folder, spec)]


def _show(outcome: DuelOutcome, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(outcome.comparison)
    elif not quiet:
        from harness.views.duel import render_duel
        from harness.views.terminal import print_out
        from harness.views.text import plain

        print_out(render_duel(outcome.paired, [run.result for run in outcome.runs]), 100)
        click.echo(f"Files: {plain(outcome.folder)}")


class _Following:
    """The live line and the events of the duel itself."""

    def __init__(self, *, live: bool, events: bool, progress_fd: int | None = None) -> None:
        from harness.views.pipe import Pipe
        from harness.views.terminal import LiveLine

        self._pipe = None if progress_fd is None else Pipe(progress_fd)
        self.problems: list[str] = []
        self._line = LiveLine() if live else None
        self._wants_events = events
        self._events: Any = None
        self._said: tuple[int, str] | None = None

    def update(self, folder: Path, standing: Standing) -> None:
        from harness.compare.paired import interval_of, ratio_of
        from harness.maybe import Unavailable

        ratios: dict[str, tuple[float, float, float]] = {}
        for index, name in enumerate(standing.names[1:], 1):
            found = ratio_of(standing.launches, index)
            if not isinstance(found, Unavailable):
                ratios[name] = (math.exp(found.log_ratio), *interval_of(found))
        self._show(standing, ratios)
        if self._wants_events and ratios:
            if self._events is None:
                from harness.tensorboard.duel import DuelEvents

                self._events = DuelEvents(folder)
            self._events.update(sum(len(one.latency[0]) for one in standing.launches), ratios)

    def _show(self, standing: Standing, ratios: dict[str, tuple[float, float, float]]) -> None:
        if self._line is None and self._pipe is None:
            return
        from harness.views.duel import live_line

        text = live_line(standing.phase, standing.launch, standing.rules.least_launches,
                         standing.names[0], ratios)  # fmt: skip
        if self._pipe is not None:
            self._pipe.write(text, None)
        if self._line is None:
            return
        place = standing.launch, standing.phase
        if self._line.redraws:
            self._line.show(text)
        elif place != self._said:
            self._line.console.print(text, soft_wrap=True, markup=False)
        self._said = place

    def joules(self, outcome: DuelOutcome) -> None:
        """What the meters said in the end."""
        from harness.maybe import Unavailable

        if self._events is None:
            return
        for name in ("gross", "net"):
            ratios: dict[str, tuple[float, float, float]] = {}
            for verdict in outcome.paired.verdicts:
                energy = verdict.energy
                ratio = getattr(energy, f"{name}_ratio", Unavailable(""))
                interval = getattr(energy, f"{name}_interval", Unavailable(""))
                if not isinstance(ratio, Unavailable) and not isinstance(interval, Unavailable):
                    ratios[verdict.b] = (ratio, *interval)
            kind = "energy_ratio" if name == "gross" else "net_energy_ratio"
            self._events.energy(outcome.paired.rounds, kind, ratios)

    def close(self) -> None:
        if self._line is not None:
            self._line.stop()
        if self._pipe is not None:
            self._pipe.close()
        if self._events is not None:
            self._events.close()
            self.problems += [self._events.problem] if self._events.problem else []
