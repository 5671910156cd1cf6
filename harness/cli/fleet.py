"""``harness fleet``: one night over several machines, on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell
from harness.text import visible

if TYPE_CHECKING:
    from harness.fleet.facts import NodeFacts
    from harness.fleet.ledger import Ledger
    from harness.fleet.plan import FleetPlan
    from harness.fleet.progress import Snapshot
    from harness.fleet.report import NightReport
    from harness.sweep.plan import Plan

_HERE = "127.0.0.1:6379"
_address = click.option(
    "--address",
    default=_HERE,
    show_default=True,
    envvar="HARNESS_FLEET_ADDRESS",
    metavar="HOST:PORT",
    help="Of the head; also by HARNESS_FLEET_ADDRESS.",
)


@click.group("fleet", short_help="Measure a night over several machines, on Ray.")
def command() -> None:
    """A night over several machines: a head, nodes that join it, a sweep file that says what goes
    where. Every planned cell ends in exactly one row: result, failed, no-runner, lost or cancelled.
    run, status and report take --json.

    \b
      harness fleet run nightly.toml --local 1      this machine alone, no set-up
      harness fleet head --host 10.0.0.5            on one machine, once
      harness fleet join 10.0.0.5:6379              on every one that measures
      harness fleet run nightly.toml --address 10.0.0.5:6379
    """


@command.command("head")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=6379, show_default=True)
def head(host: str, port: int) -> int:
    """Start a fleet's head, in the foreground. It measures nothing: `harness fleet join` does.

    Nodes and drivers show it the token in ~/.ray/auth_token, which is made if there is none.
    Whoever has the token can run programs on every node; nothing is encrypted. See docs/fleet.md.
    """
    from harness.errors import UsageError
    from harness.fleet import cluster, stay

    cluster.require()
    cluster.ensure_token(make=True)
    host, port = cluster.parse_address(f"{host}:{port}")
    if cluster.answers(host, port):
        raise UsageError(f"something listens at {host}:{port} already", "give another --port")
    node = stay.start_head(host, port)
    tell(f"head at {host}:{port}", prefix="")
    tell(f"on machines that measure: harness fleet join {host}:{port}", prefix="")
    return stay.until_ended(node, "the head's processes ended")


@command.command("join")
@click.argument("address", metavar="HOST:PORT")
@click.option("--name", help="What this machine is called.  [default: the host's name]")
@click.option("--class", "machine_class", help="What machines like it are called.")
@click.option("--node-address", metavar="IP", help="Where others reach this machine.")
def join(
    address: str, name: str | None, machine_class: str | None, node_address: str | None
) -> int:
    """Measure for the head at HOST:PORT, in the foreground, until it is interrupted.

    Says what this machine has, as `harness doctor` finds it. Where the head goes away it is waited
    for, and joined again. A Harness that differs from the head's is refused.
    """
    from harness.fleet import cluster, facts, stay

    cluster.require()
    host, port = cluster.parse_address(address)
    cluster.ensure_token(make=False)
    cluster.reach(host, port)
    me = facts.gather(name, machine_class)
    return stay.join(host, port, me, node_address, lambda text: tell(text, prefix=""))


@command.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@_address
@click.option(
    "--local", type=click.IntRange(1, 16), metavar="N", help="N nodes here, for this run."
)
@results_option
@click.option("--label", metavar="TEXT", help="Name of this night. Default: the date and commit.")
@click.option("--new", is_flag=True, help="Plan another night, even where one can be continued.")
@click.option("--retry", is_flag=True, help="Try again what has ended without a result.")
@click.option("--deadline", metavar="TIME", help="Cancel what has not ended then: 30m or 6h.")
@click.option("--dry-run", is_flag=True, help="List the cells and what they need, and run nothing.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@json_option
def run(
    file: Path,
    address: str,
    local: int | None,
    results: str,
    label: str | None,
    new: bool,
    retry: bool,
    deadline: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure every cell that FILE.toml asks for, each on the machines that it is for.

    The plan is written first, to results/NAME-LABEL; run the same command again to continue, after
    an interruption, a crash of this command or of the head. Exit code 3: a planned cell has no
    result.
    """
    from harness.cli.sweep import parse_label, parse_seconds
    from harness.errors import UsageError
    from harness.fleet import cluster, stay
    from harness.sweep.plan import read_plan

    plan = read_plan(file)
    if plan.paired:
        raise UsageError(
            f"{str(file)!r}: paired = {plan.paired!r}, and a fleet measures cell by cell",
            "leave it out, or measure on one machine: harness sweep",
        )
    limit_s = None if deadline is None else parse_seconds("--deadline", deadline)
    label = parse_label(label)
    if dry_run:
        return _list(plan, as_json)
    cluster.require()
    say = _nothing if quiet or as_json else _say
    started = _Started(plan, Path(results), label, new, retry)
    report = started.finished()
    if report is None:
        with stay.cluster_for(address, local, say) as where:
            started.alone = local is not None
            report = started.night(where, limit_s, say, live=say is _say)
    if as_json:
        print_json(report)
    else:
        _show(report, quiet)
    return 0 if report.whole else 3


class _Started:
    """One ``harness fleet run``."""

    def __init__(self, plan: Plan, results: Path, label: str | None, new: bool, retry: bool):
        from harness.fleet.night import folder_of

        self.plan, self.retry, self.results = plan, retry, results
        self.alone = False  # the cluster is ours, and nobody else can join it
        self.path, self.label = folder_of(plan, results, label, new)

    def finished(self) -> NightReport | None:
        """The report of a night that has nothing left to measure: no cluster is needed."""
        from harness.fleet.facts import code_sha256
        from harness.fleet.night import open_night
        from harness.fleet.plan import read_fleet_plan
        from harness.fleet.report import report_of

        if self.retry or read_fleet_plan(self.path) is None:
            return None
        plan, ledger = open_night(self.plan, self.path, self.label, {}, code_sha256()[:16])
        report = report_of(plan, ledger)
        return None if "open" in report.outcomes else report

    def night(
        self,
        where: tuple[str, int],
        limit_s: float | None,
        say: Callable[[str], None],
        *,
        live: bool,
    ) -> NightReport:
        from harness.fleet import facts, stay
        from harness.fleet.night import driving, open_night, reopen
        from harness.fleet.plan import classes_before
        from harness.fleet.report import report_of

        me = facts.gather()
        classes = classes_before(self.results, self.plan.name) | stay.classes_there(where)
        plan, ledger = open_night(self.plan, self.path, self.label, classes, me.code)
        with driving(ledger) as alone:
            if self.retry:
                reopen(plan, ledger)
            left = sum(not ledger.has_row(task.id) for task in plan.tasks)
            say(f"night {plan.id}: {left} of {len(plan.tasks)} cells to measure")
            if not alone:
                say("another command is at work on this night: both go on, cell by cell")
            if left:
                _drive(plan, ledger, me, where, limit_s, say, live=live, alone=self.alone)
        return report_of(plan, ledger)


def _drive(
    plan: FleetPlan,
    ledger: Ledger,
    me: NodeFacts,
    where: tuple[str, int],
    limit_s: float | None,
    say: Callable[[str], None],
    *,
    live: bool,
    alone: bool,
) -> None:
    from harness.fleet.driver import Driver
    from harness.fleet.shown import LiveTable
    from harness.fleet.stay import stoppable

    table = LiveTable(say) if live else None
    driver = Driver(plan, ledger, me, where, table.say if table else say, alone=alone)
    try:
        with stoppable():
            driver.run(table.show if table else _ignore, limit_s)
    except KeyboardInterrupt:
        if table:
            table.stop()
        tell(f"night {plan.id} goes on when you run the same command again")
        raise
    finally:
        if table:
            table.stop()


def _show(report: NightReport, quiet: bool) -> None:
    from harness.fleet.report import headline, render_report
    from harness.views.terminal import print_out

    if quiet:
        if not report.whole:
            tell(headline(report))
        return
    print_out(render_report(report), 100)


@command.command("status")
@_address
@results_option
@json_option
def status(address: str, results: str, as_json: bool) -> int:
    """The nodes that have joined, and how the newest night in the results folder stands."""
    from harness.errors import ResultError
    from harness.fleet import cluster, stay
    from harness.fleet.report import headline, night_in, report_of
    from harness.views.terminal import print_out, render_table

    cluster.require()
    host, port = cluster.parse_address(address)
    cluster.ensure_token(make=False)
    offers = stay.nodes_there((host, port))
    try:
        night = headline(report_of(*night_in(Path(results), None)))
    except ResultError:
        night = ""
    if as_json:
        print_json({"head": f"{host}:{port}", "nodes": offers, "night": night})
        return 0
    header = ("node", "class", "GPUs", "meters", "instruction sets")
    body = [(one.machine, one.machine_class, ", ".join(one.gpus) or "none",
             ", ".join(one.meters) or "none", " ".join(one.isa)) for one in offers]  # fmt: skip
    if offers:
        print_out(render_table(header, body), 120)
    else:
        click.echo(f"no node has joined the head at {host}:{port}")
    if night:
        click.echo(night)
    return 0


@command.command("report")
@click.argument("night", required=False)
@results_option
@json_option
def report(night: str | None, results: str, as_json: bool) -> int:
    """How NIGHT ended, cell by cell, computed from its plan. Default: the newest night.

    Exit code 3: a planned cell has no result.
    """
    from harness.fleet.report import night_in, report_of

    found = report_of(*night_in(Path(results), night))
    if as_json:
        print_json(found)
    else:
        _show(found, quiet=False)
    return 0 if found.whole else 3


@command.command("cancel")
@click.argument("night", required=False)
@click.option("--reason", default="cancelled by hand", show_default=True, help="Kept with it.")
@results_option
def cancel(night: str | None, reason: str, results: str) -> int:
    """End what is still open of NIGHT as cancelled. Default: the newest night."""
    from harness.fleet.night import cancel
    from harness.fleet.report import night_in
    from harness.views.text import count

    plan, ledger = night_in(Path(results), night)
    done = cancel(plan, ledger, reason)
    click.echo(visible(f"night {plan.id}: {count(done, 'cell')} cancelled"))
    return 0


def _list(plan: Plan, as_json: bool) -> int:
    from harness.fleet.plan import needs_of
    from harness.views.text import count

    cells = [(one.cell.key, one.cell.name, str(needs_of(one))) for one in plan.cells]
    if as_json:
        print_json([{"key": key, "cell": name, "for": needs} for key, name, needs in cells])
        return 0
    for key, name, needs in cells:
        click.echo(visible(f"{key}  {name}  for {needs}"))
    click.echo(f"{count(len(cells), 'cell')}, {count(plan.launches, 'launch', 'launches')} of each")
    return 0


def _say(text: str) -> None:
    tell(text, prefix="")


def _nothing(text: str) -> None:
    pass


def _ignore(snapshot: Snapshot) -> None:
    time.sleep(0)
