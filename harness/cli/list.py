"""``harness list``: models, backends and profilers, and what each can do here; runs on request."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell
from harness.inspect import probe
from harness.maybe import Maybe, Unavailable
from harness.protocols import Available, Option
from harness.views.text import plain, why

if TYPE_CHECKING:
    from harness.records.index.answers import IndexedRun
    from harness.records.index.database import Index

_KINDS = ("models", "backends", "profilers")
_RUNS = ("runs", "results")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice((*_KINDS, *_RUNS)))
@results_option
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="Of runs, the newest."
)
@json_option
def command(kind: str | None, results: str, limit: int, as_json: bool) -> int:
    """List models, backends and profilers (or only one KIND), and what works here.

    KIND `runs` (or `results`) lists the newest runs of the results folder; launches that a sweep
    made of one cell are one row, under the newest of them.

    What does not work says why, and what would make it work. A plug-in that fails to load stays
    listed with the cause.
    """
    if kind in _RUNS:
        return _runs(results, limit, as_json)
    wanted: dict[str, Callable[[], list[Any]]] = {
        "models": models,
        "backends": probe.backends,
        "profilers": _profilers,
    }
    found: dict[str, list[Any]] = {name: wanted[name]() for name in _KINDS if kind in (None, name)}
    if as_json:
        print_json(found if kind is None else found[kind])
    else:
        _print(found)
    return 0


def _runs(results: str, limit: int, as_json: bool) -> int:
    from harness.records.index.database import Index
    from harness.records.store import is_folder

    with Index(is_folder(results)) as index:
        report = index.refresh()
        found = index.runs(limit=limit)
        rows = [] if as_json else _pooled(index, limit)
    if as_json:
        print_json(found)
    else:
        from harness.views.terminal import print_out, render_table

        now, settings = datetime.now(UTC), _settings(rows, Path(results))
        body = [
            (runs[0].id, _age(runs[0], now), _status(runs), _told(runs, settings)) for runs in rows
        ]
        print_out(render_table(("Run", "age", "status", "median"), body))
    for path, reason in (*report.skipped, *report.uncounted):
        tell(f"{path}: {reason}")
    for note in report.notes:
        tell(note)
    return 0


def _age(run: IndexedRun, now: datetime) -> str:
    """``5 min``; ``?`` where the result's clock tells nothing that can be read."""
    try:
        began = datetime.fromisoformat(run.started_at)
        seconds = (now - began.replace(tzinfo=began.tzinfo or UTC)).total_seconds()
    except (ValueError, OverflowError):
        return "?"
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _pooled(index: Index, limit: int) -> list[list[IndexedRun]]:
    """The newest runs, the newest first; the launches of one cell in one sweep together."""
    fetched = limit
    while True:
        runs = index.runs(limit=fetched)
        keys = list(dict.fromkeys(map(_belongs_to, runs)))
        if len(keys) > limit or len(runs) < fetched:
            break
        fetched *= 8
    shown = dict.fromkeys(keys[:limit])
    sweeps = {run.tags["sweep"] for run in runs if _belongs_to(run) in shown and _in_sweep(run)}
    every = [run for run in runs if not _in_sweep(run)]
    every += [run for sweep in sweeps for run in index.runs(sweep=sweep)]
    rows: dict[tuple[str, ...], list[IndexedRun]] = {key: [] for key in shown}
    for run in every:
        if (key := _belongs_to(run)) in rows:
            rows[key].append(run)
    return [sorted(row, key=lambda run: run.started_at, reverse=True) for row in rows.values()]


def _in_sweep(run: IndexedRun) -> bool:
    return bool(run.tags.get("sweep") and run.tags.get("launch"))


def _belongs_to(run: IndexedRun) -> tuple[str, ...]:
    if not _in_sweep(run):
        return (run.id,)
    return run.tags["sweep"], run.cell.key, run.fingerprint, run.model_sha or ""


def _settings(rows: list[list[IndexedRun]], results: Path) -> dict[str, tuple[str, str]]:
    """By the id of a row's newest run: its pooled median, and what tells it from others of its
    model. A file that cannot be read is not there."""
    from harness.compression.apart import told_apart
    from harness.compression.pooled import entry_of_side, parts_of
    from harness.compression.settings import told
    from harness.errors import ResultError
    from harness.records.store import read_result
    from harness.views.text import quantity

    entries = {}
    for runs in rows:
        try:
            sides = parts_of([read_result(results / run.path) for run in runs])
        except ResultError:
            continue
        entries[runs[0].id] = entry_of_side(sides[0], {})
    named = told(told_apart(list(entries.values())))
    return {
        run: (
            quantity(entry.figures["latency_ms"].value, "ms")
            if "latency_ms" in entry.figures
            else "",
            entry.setting,
        )
        for run, entry in zip(entries, named, strict=True)
    }


def _status(runs: list[IndexedRun]) -> str:
    """``complete``, or of several how many are what: ``4 complete, 1 failed``."""
    counted = Counter(run.status for run in runs)
    if len(counted) == 1:
        return runs[0].status
    return ", ".join(f"{count} {status}" for status, count in counted.most_common())


def _told(runs: list[IndexedRun], settings: dict[str, tuple[str, str]]) -> str:
    """The median latency, and of the cell what is not usual and the run's name does not say."""
    newest = runs[0]
    median, setting = settings.get(newest.id, ("", ""))
    _, _, device, _, batch, scenario = newest.cell.name.rsplit("/", 5)
    unusual = {device: "cpu", batch: "b1", scenario: "latency"}
    told = [name for name, usual in unusual.items() if name != usual]
    kind, _, rate = scenario.partition("@")
    usual = "poisson arrivals"
    in_name = {usual, device, kind, f"{rate} /s", f"batch {batch[1:]}", newest.id}
    told += [part for part in setting.split(", ") if part and part not in in_name]
    launches = [f"{len(runs)} launches"] if len(runs) > 1 else []
    return plain(", ".join(filter(None, [median, *launches, *told])))


def models() -> list[dict[str, Any]]:
    """The zoo."""
    from harness.zoo import ZOO

    return [
        {
            "name": name,
            "description": recipe.description,
            "random_weights": recipe.random_weights,
            "extra": None if name == "digits" else "torch",  # digits is shipped as a file
        }
        for name, recipe in ZOO.items()
    ]


def _profilers() -> list[probe.ProfilerStatus]:
    return probe.profilers(os.getpid())


def availability(status: Maybe[Available]) -> tuple[str, str]:
    """(verdict, detail) of one answer."""
    if isinstance(status, Unavailable):
        return "n/a", why(status)
    return "yes", plain(", ".join(f"{key} {value}" for key, value in status.details.items()))


def backend_rows(backends: list[probe.BackendStatus]) -> list[tuple[str, str, str, str]]:
    """(name, device, verdict, detail) of each backend on each device."""
    return [
        (backend.name if index == 0 else "", device, *availability(status))
        for backend in backends
        for index, (device, status) in enumerate(backend.devices.items())
    ]


def option_rows(backends: list[probe.BackendStatus]) -> list[tuple[str, str, str]]:
    """(backend, name and values, what it does) of each option, the default value first."""
    return [
        (backend.name if index == 0 else "", plain(option_text(option)), plain(option_help(option)))
        for backend in backends
        for index, option in enumerate(backend.options)
    ]


def option_text(option: Option) -> str:
    """``tf32=off|on``, the default first."""
    others = [value for value in option.values if value != option.default]
    return f"{option.name}={'|'.join([option.default, *others]) if option.values else 'TEXT'}"


def option_help(option: Option) -> str:
    """What it does, and where."""
    where = f"on {option.device} alone" if option.device else ""
    return "; ".join(filter(None, (option.help, where)))


def _print(found: dict[str, list[Any]]) -> None:
    from rich.text import Text

    from harness.views.terminal import print_out, render_table

    tables = []
    if "models" in found:
        rows = [(one["name"], one["extra"] or "", one["description"]) for one in found["models"]]
        rows += [("FILE.onnx", "", "any ONNX file")]
        rows += [("FILE.pt2", "torch", "a program saved by torch.export")]
        rows += [("FILE.pt", "torch", "a TorchScript file, saved by torch.jit")]
        described = "a function that returns a torch module and example inputs"
        rows += [("MODULE:FACTORY", "torch", described)]
        tables.append(render_table(("Model", "needs", ""), rows))
        tables.append(Text("To have torch: pip install 'hw-harness[torch]'"))
    if "backends" in found:
        header = ("Backend", "device", "works", "")
        tables.append(render_table(header, backend_rows(found["backends"])))
        if len(found) == 1 and (options := option_rows(found["backends"])):
            tables.append(render_table(("Option of", "--option", ""), options))
    if "profilers" in found:
        statuses = [(status.name, *availability(status.status)) for status in found["profilers"]]
        tables.append(render_table(("Profiler", "works", ""), statuses))
    for index, table in enumerate(tables):
        if index:
            click.echo()
        print_out(table)
