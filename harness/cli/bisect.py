"""``harness bisect``: what came between the last good run and the first bad one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.bisect_package import FIELDS
from harness.cli.bisect_package import bisect as bisect_package
from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell
from harness.spec import BY_NAME, flag

if TYPE_CHECKING:
    from harness.compare.culprit import Suspects
    from harness.records.metric import Metric

_EXIT = {"good": 0, "bad": 1, "unclear": 125}  # as git bisect run reads them
_STOP = 128
_ROUNDS = 4
_OUT = ".harness-bisect"


def _of_a_run(command: Any) -> Any:
    """With --package: what is measured, by the flags of a run."""
    for name in reversed(FIELDS):
        field = BY_NAME[name]
        text = f"With --package; {field.help[:1].lower()}{field.help[1:]}"
        flags = (field.flag, field.name)
        command = click.option(*flags, metavar=field.metavar, multiple=field.many, help=text)(
            command
        )
    return command


@click.command("bisect")
@click.argument("cell", metavar="CELL|LOW..HIGH")
@click.option("--package", metavar="DISTRIBUTION", help="Bisect its versions from LOW to HIGH.")
@_of_a_run
@click.option("--metric", default="latency_median", show_default=True)
@click.option("--good", metavar="REF", help="Runs that were good. Default: from the history.")
@click.option("--bad", metavar="REF", help="Runs that were bad. Default: from the history.")
@click.option("--machine", metavar="FINGERPRINT", help="Only this machine (or its beginning).")
@click.option("--run", "measure", is_flag=True, help="Measure now; exit 0, 1 or 125.")
@click.option(
    "--launches",
    default="6",
    show_default=True,
    metavar="K",
    help="With --run; up to four times as many.",
)
@click.option(
    "--trust",
    multiple=True,
    metavar="NAME",
    help="With --run; code that the runs name (module:name, a library) and that may be executed.",
)
@click.option("--out", default=_OUT, show_default=True, metavar="FOLDER", help="With --run.")
@results_option
@json_option
def command(
    cell: str,
    metric: str,
    good: str | None,
    bad: str | None,
    machine: str | None,
    measure: bool,
    launches: str,
    trust: tuple[str, ...],
    out: str,
    results: str,
    as_json: bool,
    package: str | None,
    **values: Any,
) -> int:
    """Since when is CELL worse, what changed then, and how to find the commit.

    Good and bad runs come from the history of CELL, or are named. With --run the cell is measured
    as it is now, in up to four times --launches while it is unclear, and told good (exit code 0) or
    bad (1) by the nearer level: a command for `git bisect run`. It skips a commit (125) that is
    unclear or cannot be measured, and stops (128) where runs are named wrongly.

    \b
      harness bisect digits/onnxruntime/cpu/int8/b1/latency
      git bisect start BAD_COMMIT GOOD_COMMIT
      git bisect run harness bisect CELL --good RUN --bad RUN --run

    With --package, versions of a distribution take turns (see harness duel), each installed by pip
    into a folder of its own, which is kept; the one that made the change is named.

    \b
      harness bisect --package onnxruntime 1.20.1..1.23.0 --model net.onnx
    """
    from harness.errors import UsageError
    from harness.records.metric import metric as metric_named

    given = [name for name, value in values.items() if value]
    if package is not None:
        if good or bad or machine or measure:
            raise UsageError("--package takes no runs", "give LOW..HIGH and --model")
        return bisect_package(package, cell, values, results, as_json)
    if given:
        raise UsageError(f"{flag(given[0])} without --package", "give --package DISTRIBUTION")

    def look() -> Suspects:
        if (good is None) != (bad is None):
            raise UsageError("--good and --bad go together", "give both, or neither")
        return _suspects(Path(results), cell, metric_named(metric), machine, good, bad)

    if measure:
        return _test(look, launches, Path(out), trust)
    found = look()
    if as_json:
        print_json(found)
    else:
        from harness.views.culprit import commands, render_suspects
        from harness.views.terminal import print_out

        print_out(render_suspects(found))
        for text in commands(found, results):
            click.echo(text)  # as it is to be typed, whatever the width
    return 0


def _test(look: Callable[[], Suspects], launches: str, out: Path, trusted: Sequence[str]) -> int:
    """The exit code for ``git bisect run``, which takes 2 and 3 for bad, and stops at 128."""
    from harness.errors import HarnessError
    from harness.spec import parse_int
    from harness.sweep.again import refuse_untrusted

    code = _STOP
    try:
        found = look()
        count = parse_int("--launches", launches, 6, 250)
        refuse_untrusted(found.bad.spec, trusted, "give --trust NAME")
        code = _EXIT["unclear"]  # from here on it is this commit that cannot be measured
        return _measure(found, count, out)
    except HarnessError as error:
        tell(error)
        return code
    except Exception:  # a defect of ours says nothing about the commit either
        traceback.print_exc()
        return code


def _suspects(
    results: Path,
    cell: str,
    metric: Metric,
    machine: str | None,
    good: str | None,
    bad: str | None,
) -> Suspects:
    from harness.compare.culprit import suspects
    from harness.compare.series import from_history
    from harness.records.refs import resolve

    if good is None or bad is None:
        problems: list[str] = []
        try:
            return from_history(results, cell, metric, machine, problems)
        finally:
            for problem in problems:
                tell(problem)
    first, last = (resolve(ref, results).results for ref in (good, bad))
    return suspects(cell, metric, first, last, names=(good, bad))


def _measure(found: Suspects, launches: int, out: Path) -> int:
    """Measure the cell of the bad runs as it is now, and tell which side it is on.

    While that is unclear, as many launches again, up to `_ROUNDS` times as many in all.
    """
    from harness.compare.culprit import classify
    from harness.sweep.again import measure_again
    from harness.views.text import quantity

    values: list[float] = []
    told = classify(values, found.good.level, found.bad.level)
    while told.verdict == "unclear" and len(values) < _ROUNDS * launches:
        values += measure_again(found.bad, found.metric.name, launches, out)
        told = classify(values, found.good.level, found.bad.level)
    low, high = (100 * share for share in told.interval)
    now, good, bad = (
        quantity(value, found.metric.unit)
        for value in (told.median, found.good.level, found.bad.level)
    )
    click.echo(
        f"{told.verdict}: {now} lies {100 * told.share:z.0f} % [{low:z.0f}, {high:z.0f}] of the "
        f"way from good ({good}) to bad ({bad}), by {len(values)} launches"
    )
    return _EXIT[told.verdict]
