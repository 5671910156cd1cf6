"""``harness doctor``: what this machine can and cannot measure, why, and how to fix it."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.list import backend_rows
from harness.cli.output import json_option, print_json, results_folder
from harness.inspect import meters as matrix
from harness.inspect.findings import Report, examine
from harness.machine import UNKNOWN

_FACTS = (
    "cpu", "architecture", "physical_cores", "usable_cpus", "cpu_quota", "memory_class", "virtual",
    "container", "kernel", "boost", "clocksource",
)  # fmt: skip


@click.command("doctor")
@results_folder("Whose disk to look at.", "--out", name="out")
@json_option
def command(out: str, as_json: bool) -> int:
    """Say what this machine can and cannot measure, why, and how to fix it.

    Nothing is changed. Each remedy is yours to run.
    """
    report = examine(Path(out))
    if as_json:
        print_json(report)
    else:
        _print(report)
    return 0


def _print(report: Report) -> None:
    from harness.views.terminal import print_out, render_table

    facts = {**report.machine.context, **report.machine.factors}
    known = [(k, facts[k]) for k in _FACTS if facts.get(k, UNKNOWN) != UNKNOWN]
    findings = [
        (f.name, f.verdict, "; ".join(filter(None, (f.found, f.remedy)))) for f in report.findings
    ]
    lines = matrix.meter_lines(report.meters)
    print_out(render_table(("Machine", ""), known))
    click.echo()
    print_out(render_table(("Conditions", "", ""), findings))
    click.echo()
    print_out(render_table(("Energy", "scope", "works", ""), lines))
    if not any(verdict == "yes" for _, _, verdict, _ in lines):
        click.echo(matrix.NO_METER)
    click.echo()
    print_out(render_table(("GPU", "scope", "works", ""), matrix.gpu_lines(report.gpus)))
    click.echo()
    channels = matrix.profiler_lines(report.profilers)
    print_out(render_table(("Channels", "scope", "works", ""), channels))
    click.echo()
    backends = backend_rows(list(report.backends))
    print_out(render_table(("Backend", "device", "works", ""), backends))
