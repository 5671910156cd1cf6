"""``harness list``: models, backends and profilers, and what each can do here; runs on request."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from harness.cli import probe
from harness.cli.output import json_option, print_json, results_option
from harness.maybe import Maybe, Unavailable
from harness.protocols import Available
from harness.sinks.rows import plain, why

if TYPE_CHECKING:
    from harness.records.index import IndexedRun

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

    What does not work says why, and what would make it work. A plug-in that fails to load stays
    listed with the cause. KIND `runs` (or `results`) lists the newest runs of the results folder.
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
    from harness.records.index import Index

    with Index(results) as index:
        report = index.refresh()
        found = index.runs(limit=limit)
    if as_json:
        print_json(found)
    else:
        from harness.sinks.terminal import render_table, to_text

        body = [(run.id, run.status, run.cell.name, _headline(run)) for run in found]
        # wider than a terminal may be: an id or a cell that is cut off is of no use
        click.echo(to_text(render_table(("Run", "status", "cell", ""), body), width=200))
    for path, reason in (*report.skipped, *report.uncounted):
        click.echo(f"harness: {plain(path)}: {plain(reason)}", err=True)
    for note in report.notes:
        click.echo(f"harness: {plain(note)}", err=True)
    return 0


def _headline(run: IndexedRun) -> str:
    """Median latency, throughput, energy and accuracy, as far as they were measured."""
    from harness.sinks.rows import number, quantity

    shown: dict[str, Callable[[float], str]] = {
        "latency_median": lambda value: quantity(value, "ms"),
        "throughput": lambda value: f"{number(value)} /s",
        "energy_per_inference": lambda value: quantity(value, "J"),
        "accuracy_top1": lambda value: f"top-1 {value:.2%}",
    }
    return ", ".join(text(run.values[name]) for name, text in shown.items() if name in run.values)


def models() -> list[dict[str, Any]]:
    """The zoo."""
    from harness.models.zoo import ZOO

    return [
        {
            "name": name,
            "description": recipe.description,
            "random_weights": recipe.random_weights,
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


def _print(found: dict[str, list[Any]]) -> None:
    from harness.sinks.terminal import print_out, render_table

    tables = []
    if "models" in found:
        rows = [(model["name"], model["description"]) for model in found["models"]]
        rows += [("FILE.onnx", "any ONNX file"), ("FILE.pt2", "a program saved by torch.export")]
        rows += [("MODULE:FACTORY", "a function that returns a torch module and example inputs")]
        tables.append(render_table(("Model", ""), rows))
    if "backends" in found:
        header = ("Backend", "device", "works", "")
        tables.append(render_table(header, backend_rows(found["backends"])))
    if "profilers" in found:
        statuses = [(status.name, *availability(status.status)) for status in found["profilers"]]
        tables.append(render_table(("Profiler", "works", ""), statuses))
    for index, table in enumerate(tables):
        if index:
            click.echo()
        print_out(table)
