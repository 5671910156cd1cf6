"""What TensorBoard's data provider holds, as a `Board`.

Only the provider's public interface is used (list, then read the newest value of each tag wanted),
so that the default fast loader and the slow one serve alike.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.board.add_scalars import is_curve
from harness.board.beside import Beside
from harness.board.gather import LIVE, Run, board
from harness.compression.model import METRICS, Board
from harness.tensorboard.tags import of_the_board

if TYPE_CHECKING:
    from tensorboard.context import RequestContext
    from tensorboard.data.provider import DataProvider

_KINDS = ("scalars", "histograms", "text")  # TensorBoard's names of the plug-ins that own the tags
_Listing = dict[str, dict[str, Any]]  # run -> tag -> its time series


class Source:
    """The board of one TensorBoard. Safe to use from several threads."""

    def __init__(self, provider: DataProvider, logdir: str | Path | None = None) -> None:
        """``logdir``: where the results lie beside the events, if TensorBoard reads one folder."""
        self._provider = provider
        self._beside = Beside(Path(logdir)) if logdir else None
        self._lock = threading.Lock()
        self._token, self._json = "", b""

    def has_data(self, ctx: RequestContext, experiment: str) -> bool:
        """Whether any run holds a tag of the board."""
        return any(any(runs.values()) for runs in self._list(ctx, experiment).values())

    def json(self, ctx: RequestContext, experiment: str) -> tuple[str, bytes]:
        """A token that changes when the data does, and {"token", "metrics", "board"} as JSON."""
        with self._lock:
            listed = self._list(ctx, experiment)
            runs = {run for tags in listed.values() for run in tags}
            stamps = self._beside.look(runs) if self._beside else []
            token = _token(listed, stamps)
            if token != self._token:
                found = self._read(ctx, experiment, listed)
                payload = {"token": token, "metrics": METRICS, "board": found}
                self._json = msgspec.json.encode(payload)
                self._token = token
            return self._token, self._json

    def _list(self, ctx: RequestContext, experiment: str) -> dict[str, _Listing]:
        """kind -> run -> tag -> series: the board's own tags, and the live ones beside them."""
        listed: dict[str, _Listing] = {}
        for kind in _KINDS:
            ask = self._provider.list_scalars if kind == "scalars" else self._provider.list_tensors
            listed[kind] = ask(ctx, experiment_id=experiment, plugin_name=kind) or {}
        names = {run for runs in listed.values() for run in runs}
        wanted = {name: wanted_of(name, (t for r in listed.values() for t in r.get(name, ())))
                  for name in names}  # fmt: skip
        return {
            kind: {
                run: {tag: series for tag, series in tags.items() if tag in wanted[run]}
                for run, tags in runs.items()
            }
            for kind, runs in listed.items()
        }

    def _read(self, ctx: RequestContext, experiment: str, listed: Mapping[str, _Listing]) -> Board:
        runs: dict[str, Run] = {}
        for kind, listing in listed.items():
            for name, tags in listing.items():
                for series in tags.values():
                    run = runs.setdefault(name, Run())
                    run.seen_s = max(run.seen_s, series.max_wall_time)
            for name, values in self._newest(ctx, experiment, kind, listing).items():
                run = runs.setdefault(name, Run())
                if kind == "scalars":
                    run.scalars = {tag: float(datum.value) for tag, datum in values.items()}
                elif kind == "text":
                    run.texts = {tag: _text(datum.numpy) for tag, datum in values.items()}
                else:
                    run.histograms = {tag: _rows(datum.numpy) for tag, datum in values.items()}
        now_s = time.time()  # against the stamps in the files, which are wall time
        if self._beside is None:
            return board(runs, now_s)
        found = board(runs, now_s, self._beside.results, self._beside.folders)
        return msgspec.structs.replace(found, notes=(*found.notes, *self._beside.problems))

    def _newest(
        self, ctx: RequestContext, experiment: str, kind: str, listing: _Listing
    ) -> dict[str, dict[str, Any]]:
        """run -> tag -> the newest point."""
        from tensorboard.data.provider import RunTagFilter

        runs = [run for run, tags in listing.items() if tags]
        wanted = RunTagFilter(runs=runs, tags={tag for run in runs for tag in listing[run]})
        read = self._provider.read_scalars if kind == "scalars" else self._provider.read_tensors
        asked = {"experiment_id": experiment, "plugin_name": kind, "run_tag_filter": wanted}
        found = read(ctx, downsample=1, **asked) or {}
        return {
            run: {tag: points[-1] for tag, points in tags.items()
                  if points and tag in listing.get(run, {})}
            for run, tags in found.items()
        }  # fmt: skip


def wanted_of(run: str, tags: Iterable[str]) -> set[str]:
    """Those of the tags of ``run`` that the board reads."""
    listed = [*tags]
    own = of_the_board(listed)
    curves = {tag for tag in listed if is_curve(run, tag)}
    return {*own, *LIVE.values(), *curves} if own else curves


def _token(listed: Mapping[str, _Listing], stamps: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for stamp in stamps:
        digest.update(repr(stamp).encode("utf-8", "replace"))
    for kind, listing in sorted(listed.items()):
        for run, tags in sorted(listing.items()):
            for tag, series in sorted(tags.items()):
                found = (kind, run, tag, series.max_step, series.max_wall_time)
                digest.update(repr(found).encode("utf-8", "replace"))
    return digest.hexdigest()[:32]


def _text(values: Any) -> str:
    """The first string of a text tensor of any shape."""
    flat = values.ravel()
    first = flat[0] if flat.size else b""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def _rows(values: Any) -> list[list[float]]:
    """A histogram tensor, [bins, 3]; nothing where it has another shape."""
    if values.ndim != 2 or values.shape[1:] != (3,) or values.dtype.kind not in "fiu":
        return []
    rows: list[list[float]] = values.tolist()
    return rows
