"""Feed TensorBoard while a run goes, and leave its final figures there.

The events lie in the run folder itself, so ``tensorboard --logdir results`` shows run ids as runs.

    live    latency/ms (histogram), latency/median_ms, throughput/per_s, one scalar per sensor
    final   `HEADLINES` as scalars, an hparams row of them against what was asked, a text summary;
            the tags of the Compression Board, by model and precision (`harness.tensorboard.tags`)

A step is a millisecond since the first event (of ``latency_by_launch`` it is the launch, from 1):
it grows through every phase and launch, and two runs laid over each other start together. Sensor
readings cover all phases, latencies the timed windows.

An event that cannot be written ends the feed, `TensorBoardSink.problem` says why, and the run goes
on.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.compression.entries import entry_of, model_of
from harness.compression.settings import facts_of
from harness.host.names import tag_name
from harness.maybe import Unavailable
from harness.records.figures import single
from harness.records.metric import FIGURES
from harness.records.result import Result
from harness.spec import RunSpec, shown
from harness.stats.histogram import CUT_MEDIANS, Distribution, histogram_fields
from harness.tensorboard import layouts
from harness.tensorboard.events import EventFile, Feed, ended
from harness.tensorboard.tags import write_launch, write_run, write_running
from harness.views.markdown import render_markdown

if TYPE_CHECKING:
    from harness.protocols import Progress

# tag -> the figure that it shows. What is unavailable writes nothing.
HEADLINES = {one.headline: name for name, one in FIGURES.items() if one.headline}


class TensorBoardSink:
    """A `engine.driver.sinks.Sink`. The first `update` imports tensorboardX (about 0.15 s)."""

    def __init__(self, folder: Path, spec: RunSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.problem: str | None = None  # why the feed ended early
        self._file: EventFile | None = None
        self._start_s: float | None = None
        self._step = -1
        self._latencies = Distribution()  # of all windows
        self._by_launch: defaultdict[int, Distribution] = defaultdict(Distribution)

    def update(self, progress: Progress) -> None:
        """Write what is new and flush it."""
        if self._start_s is None:
            self._start_s = progress.wall_time_s
        if progress.phase in ("build", "load"):
            return  # the import would compete with the worker's own
        self._latencies.add(progress.new_latencies_ms)
        self._by_launch[progress.launch].add(progress.new_latencies_ms)
        self._write(progress.wall_time_s, partial(self._follow, progress, self._file is None))

    def close(self, result: Result | None) -> None:
        """Write the final figures of ``result`` and close the file."""
        if result is not None:
            self._write(time.time(), lambda feed: self._finish(feed, result))
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is left to flush could not be written before
                self._file.close()
            self._file = None

    def _finish(self, feed: Feed, result: Result) -> None:
        _write_result(feed, result, self._latencies)
        assert self._file is not None
        spec = result.spec
        for launch, latencies in self._by_launch.items():
            if (fields := latencies.fields()) is not None:
                steps = self._file.at(launch + 1)
                write_launch(steps, model_of(spec), spec.precision, fields)

    def _follow(self, progress: Progress, first: bool, feed: Feed) -> None:
        if first:
            write_running(feed, self.spec)
        _write_progress(feed, progress)

    def _write(self, wall_time_s: float, write: Callable[[Feed], None]) -> None:
        """One batch of events at one step; nothing once the feed has ended."""
        if self.problem is not None:
            return
        started_s = wall_time_s if self._start_s is None else self._start_s
        try:
            if self._file is None:
                self._file = _open(self.folder, wall_time_s)
            # the wall clock may be set back meanwhile, a step never goes back
            self._step = max(self._step + 1, round((wall_time_s - started_s) * 1e3))
            write(self._file.at(self._step, wall_time_s))
            self._file.flush()
        except (OSError, ImportError) as error:
            self.problem = ended(error)


def _write_progress(feed: Feed, progress: Progress) -> None:
    if len(progress.new_latencies_ms) and progress.median_ms is not None:
        cut_ms = CUT_MEDIANS * progress.median_ms
        feed.histogram("latency/ms", histogram_fields(progress.new_latencies_ms, cut_ms))
    if progress.phase == "window" and progress.iterations:
        feed.scalar("latency/median_ms", progress.median_ms)
        feed.scalar("throughput/per_s", progress.throughput_per_s)
    for tag, value in progress.readings.items():
        feed.scalar(tag, value)


def _write_result(feed: Feed, result: Result, latencies: Distribution) -> None:
    write_run(feed, entry_of(result), latencies.fields())

    for tag, value in headline_values(result).items():
        feed.scalar(tag, value)
    feed.text("summary", render_markdown(result))
    if result.status == "failed":
        return
    charts = layouts.of_models([tag_name(model_of(result.spec))]) | layouts.LIVE
    feed.add(layouts.TAG, layouts.encoded(charts))
    # TensorBoard takes the columns of the whole table from one of its runs, so each names them all
    feed.hparams(_hyperparameters(result), dict.fromkeys(HEADLINES, 0.0))


def headline_values(result: Result) -> dict[str, float]:
    """tag -> value for those of `HEADLINES` that were measured."""
    found = {tag: single(result, name) for tag, name in HEADLINES.items()}
    return {tag: value for tag, value in found.items() if not isinstance(value, Unavailable)}


def _hyperparameters(result: Result) -> dict[str, str | float]:
    # the first columns are those that TensorBoard shows before anybody asks
    facts: dict[str, str | float] = {
        "model": model_of(result.spec), "precision": result.spec.precision,
    }  # fmt: skip
    facts.update(facts_of(result.spec))
    facts.update(shown(result.spec))
    return facts | {"threads": str(facts["threads"]), "status": result.status}


def _open(folder: Path, wall_time_s: float) -> EventFile:
    """An event file in ``folder``, begun. Raises `OSError` or `ImportError`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the run folder {str(folder)!r} is gone")
    return EventFile(folder / f"events.out.tfevents.{wall_time_s:.0f}.harness", wall_time_s)
