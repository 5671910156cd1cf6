"""Bring the compression engine's result file into TensorBoard: whole, or not at all.

Everything is read and checked first. Then each model's events are written in its run folder, under
a name that TensorBoard does not look at; when all are on the disk they are renamed. Whatever goes
wrong before that, what was begun is removed. Importing a model again replaces its import.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

from harness.compression import engine_file as compression_engine
from harness.compression.model import Board, Entry
from harness.host.names import tag_name
from harness.tensorboard.model_run import ModelRun, mapped
from harness.views.compression import entry_table

EVENTS_NAME = "events.out.tfevents.0.harness-import"
_UNFINISHED_NAME = f".harness-import.{os.getpid()}.partial"


def log_benchmark_results(path: str | Path, logdir: str | Path | None = None) -> Board:
    """The file as a `Board`, written below ``logdir`` (default ``results``), one run per model.

    Raises `DataError` for a file that cannot be read, `ResultError` for a folder not writable.
    """
    board = compression_engine.load(path)
    write(board, Path("results" if logdir is None else logdir))
    return board


def write(board: Board, logdir: Path) -> None:
    """Write ``board`` as events, all or none. Raises `ResultError`."""
    models: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in board.entries:
        models[entry.model].append(entry)
    started: list[ModelRun] = []
    with mapped(logdir):
        new = _missing_folders(logdir)
        try:
            logdir.mkdir(parents=True, exist_ok=True)
            for model, entries in models.items():
                run = ModelRun(logdir, model, lambda: _UNFINISHED_NAME)
                started.append(run)
                _write_model(run, entries)
            for model, why in _failed(board).items():
                run = ModelRun(logdir, model, lambda: _UNFINISHED_NAME)
                run.info = {"status": "failed", "error": why}
                started.append(run)
                _write_model(run, [])
            for run in started:
                (run.folder / _UNFINISHED_NAME).replace(run.folder / EVENTS_NAME)
        except BaseException:
            _remove([run.folder for run in started], new)
            raise


def _write_model(run: ModelRun, entries: list[Entry]) -> None:
    try:
        for entry in entries:
            run.add(entry)
        run.write_figures([entry.precision for entry in entries], step=0)
        run.write_metadata(step=0)
        if entries:
            run.file.at(0).text(f"{tag_name(run.model)}/summary", entry_table(run.entries()))
    finally:
        run.close()


def _failed(board: Board) -> dict[str, str]:
    """Models without any precision of which the file says what went wrong."""
    there = {entry.model for entry in board.entries}
    left = {model: said for model, said in board.extra.items() if model not in there}
    return {
        model: why for model, said in left.items() if (why := compression_engine.error_of(said))
    }


def _missing_folders(path: Path) -> list[Path]:
    """``path`` and those of its parents that are not there, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _remove(runs: list[Path], folders: list[Path]) -> None:
    """Unfinished events, and the folders that are empty without them."""
    for folder in runs:
        with contextlib.suppress(OSError):
            (folder / _UNFINISHED_NAME).unlink(missing_ok=True)
            folder.rmdir()
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
