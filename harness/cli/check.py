"""``harness check``: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.compare.gate.judge import GateReport
    from harness.compare.policy import Confirm, Policy
    from harness.records.refs import Selection

_POLICY = "harness-policy.toml"
_IN_FOLDER = {"junit": "junit.xml", "markdown": "summary.md", "json": "report.json"}


@click.command("check")
@click.argument("candidate", default="latest")
@click.option("--baseline", required=True, metavar="REF", help="What to hold it against.")
@click.option("--policy", metavar="FILE", help=f"Default: {_POLICY}, where there is one.")
@click.option("--strict", is_flag=True, help="Fail what was not compared or not decided, too.")
@click.option("--junit", metavar="FILE", help="Write a JUnit XML report.")
@click.option("--markdown", metavar="FILE", help="Write a summary for a CI page.")
@click.option("--json-file", "json_file", metavar="FILE", help="Write the whole report.")
@click.option("--report-dir", metavar="DIR", help="Write all three into this folder.")
@click.option("--confirm", is_flag=True, help="Measure both builds again before calling it worse.")
@click.option(
    "--allow-different-hardware",
    "other_hardware",
    is_flag=True,
    help="Show ratios between machines; they neither pass nor fail.",
)
@results_option
@json_option
def command(
    candidate: str,
    baseline: str,
    policy: str | None,
    strict: bool,
    junit: str | None,
    markdown: str | None,
    json_file: str | None,
    report_dir: str | None,
    confirm: bool,
    other_hardware: bool,
    results: str,
    as_json: bool,
) -> int:
    """Is CANDIDATE worse than the baseline allows? Both are named as for `harness compare`.

    Cells are matched, judged launch by launch, and held against the policy. Reports are written
    before the command ends, whatever the outcome. Exit codes: 0 nothing is worse than allowed;
    1 something is, or a waiver has expired; 3 a cell was not measured; 4 nothing was compared;
    5 something is undecided, with --strict. --strict fails what could not be compared, too (4).

    With --confirm, cells that got worse are measured again, both builds in turn, as [confirm] of
    the policy says: in a duel where they can take turns, else in separate launches. What is not
    worse side by side was the night or the machine, and fails nothing.

    \b
      harness check --baseline release
      harness check --baseline history@main     its last 20 good nights
      harness check nightly-2026-11-21 --baseline latest@main --report-dir gate
    """
    from harness.compare.gate.judge import judge
    from harness.compare.series import NightSpreads
    from harness.errors import UsageError
    from harness.views.text import plain

    files = _files(junit, markdown, json_file, report_dir)
    asked, source = _policy(policy)
    if confirm and asked.confirm is None:
        raise UsageError("--confirm needs [confirm] in the policy", "see docs/policy.md")
    new = _candidate(candidate, results)
    old = _baseline(baseline, new, results)
    planned, unread = _planned(_sweeps(new, results))
    problems = dict.fromkeys((*old.problems, *new.problems, *unread))
    report = judge(
        old.results,
        new.results,
        asked,
        names=(plain(old.name), plain(new.name)),
        source=plain(source),
        strict=True if strict else None,
        other_hardware=other_hardware,
        problems=tuple(map(plain, problems)),
        night_sd=NightSpreads(results),
        planned=planned,
    )
    try:
        if asked.confirm is not None and confirm:
            report = _confirmed(report, asked, asked.confirm, old, new, results)
    finally:  # what was found is not lost to what cannot be measured again or written
        _tell(report, files, as_json)
    return report.exit_code


def _tell(report: GateReport, files: dict[str, Path], as_json: bool) -> None:
    """Write the reports, and print the outcome even where that fails."""
    for problem in report.comparison.problems:
        tell(problem)
    try:
        _write(report, files)
    finally:
        if as_json:
            print_json(report)
        else:
            from harness.views.gate import render_gate
            from harness.views.terminal import print_out

            print_out(render_gate(report))


def _confirmed(
    report: GateReport,
    policy: Policy,
    builds: Confirm,
    old: Selection,
    new: Selection,
    results: str,
) -> GateReport:
    """Regressed cells measured again, by both builds: in turns where they can, else in separate
    launches. Raises `UsageError` where a build is missing."""
    from datetime import UTC, datetime

    from harness.compare.gate.confirm import confirmed, open_cells, regressed_cells
    from harness.compare.gate.judge import settings_of
    from harness.records.cell import cell_of
    from harness.sweep.confirm import ready, separately
    from harness.sweep.turns import in_turns
    from harness.views.text import count

    cells = regressed_cells(report)
    if not cells:
        return report
    tell(f"measuring {count(len(cells), 'cell')} again, both builds in turn", prefix="")
    specs = {cell_of(run).name: run.spec for run in new.results if cell_of(run).name in cells}
    commits = (old.results[-1].software.commit, new.results[-1].software.commit)
    out = Path(results, ".confirm", datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    settings = settings_of(policy)
    with ready(builds, specs, commits) as both:
        again = [in_turns(both, specs, (old.results, new.results), settings, out, tell)]
        left = {cell: specs[cell] for cell in open_cells(report, again[0]) if cell in specs}
        failed: dict[str, str] = {}
        if left:
            apart, failed = separately(both, left, settings, out)
            again.append(apart)
    return confirmed(report, again, failed)


def _policy(name: str | None) -> tuple[Policy, str]:
    """The policy asked for, else the one in the current folder, else the default; and its name."""
    from harness.compare.policy import Policy, read_policy

    if name is not None or Path(_POLICY).exists():
        return read_policy(Path(name or _POLICY)), name or _POLICY
    return Policy(), "default"


def _baseline(ref: str, candidate: Selection, results: str) -> Selection:
    """The runs that it names; of ``history`` the last good nights of the candidate's cells."""
    from harness.compare import good_nights
    from harness.records.refs import resolve

    if ref.partition("@")[0] == good_nights.NAME and candidate.results:
        return good_nights.good_nights(ref, candidate.results, Path(results))
    return resolve(ref, results)


def _candidate(ref: str, results: str) -> Selection:
    """The runs; none of a sweep that could not measure a single cell, which is no bad usage."""
    from harness.errors import ResultError
    from harness.records.refs import Selection, resolve

    try:
        return resolve(ref, results)
    except ResultError as error:
        empty = Selection(name=ref, results=(), problems=(str(error),))
        if not _sweeps(empty, results):
            raise
        return empty


def _sweeps(selection: Selection, results: str) -> list[Path]:
    """The folders of the sweeps that are meant as a whole: by name, or by several of their runs."""
    holding = [path.parent.parent for path in selection.paths]
    folders = [folder for folder in holding if holding.count(folder) > 1]
    folders += [Path(selection.name), Path(results, selection.name)]
    found = {folder.resolve(): folder for folder in folders if _holds_sweep(folder)}
    return list(found.values())


def _holds_sweep(folder: Path) -> bool:
    try:
        return (folder / "sweep.json").is_file()
    except (OSError, ValueError):
        return False


def _planned(sweeps: list[Path]) -> tuple[dict[str, str], list[str]]:
    """Cells that sweeps set out to measure, each with how its last attempt ended; and problems.

    A launch that was refused or timed out leaves no result, so its cell would be missing unseen.
    """
    import msgspec

    from harness import maybe
    from harness.errors import ResultError
    from harness.fleet.report import absent_cells
    from harness.records.store import read_bytes
    from harness.sweep.folder import ATTEMPTS, MANIFEST, Attempt, Manifest

    planned: dict[str, str] = {}
    problems: list[str] = []
    for folder in sweeps:
        if not (folder / MANIFEST).exists():
            continue
        try:
            planned |= absent_cells(folder)
            manifest = maybe.decode(read_bytes(folder / MANIFEST), Manifest)
            planned |= dict.fromkeys((cell.name for cell in manifest.cells), "")
            if not (folder / ATTEMPTS).exists():  # nothing has been tried yet
                continue
            for line in read_bytes(folder / ATTEMPTS).splitlines():
                attempt = maybe.decode(line, Attempt)
                planned[attempt.cell] = f": {attempt.status}: {attempt.reason}"
        except (OSError, ResultError, msgspec.MsgspecError) as error:
            problems.append(
                f"{str(folder)!r}: its sweep cannot be read, so cells that it planned and did not "
                f"measure may go unseen: {error}"
            )
    return planned, problems


def _files(
    junit: str | None, markdown: str | None, json_file: str | None, report_dir: str | None
) -> dict[str, Path]:
    """Kind of report -> its file. Raises `UsageError` before anything is judged."""
    from harness.errors import UsageError

    named = {"junit": junit, "markdown": markdown, "json": json_file}
    files = {kind: Path(name) for kind, name in named.items() if name}
    if report_dir:
        folder = Path(report_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--report-dir {report_dir!r} cannot be made: {why}") from error
        files = {kind: folder / name for kind, name in _IN_FOLDER.items()} | files
    for kind, path in files.items():
        if other := next((k for k in files if k < kind and files[k] == path), None):
            told = f"{str(path)!r} cannot hold the {other} and the {kind} report"
            raise UsageError(told, "name two files")
        if str(path) == "-" or not _writable(path):
            raise UsageError(
                f"the {kind} report cannot be {str(path)!r}", "name a file in a folder"
            )
    return files


def _writable(path: Path) -> bool:
    try:
        return path.parent.is_dir() and not path.is_dir()
    except (OSError, ValueError):  # a name too long for a file, or with a null character
        return False


def _write(report: GateReport, files: dict[str, Path]) -> None:
    import msgspec

    from harness.host.files import write_atomically
    from harness.views.gate import render_gate_markdown
    from harness.views.gate_junit import render_junit

    for kind, path in files.items():
        if kind == "junit":
            data = render_junit(report)
        elif kind == "markdown":
            data = render_gate_markdown(report).encode()
        else:
            data = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        write_atomically(path, data)
