"""Write the Compression Board's tags: models at two or more precisions, one TensorBoard run each.

    with CompressionWriter("results") as board:
        board.log_compression_comparison("resnet18", fp32_metrics, int8_metrics)

    results/resnet18/events.out.tfevents...   resnet18/accuracy/int8, resnet18/compression/speedup,
                                              resnet18/metadata/info, ...

One run per model, not one per curve as `add_scalars` makes. A call checks all that it is given
before it writes anything, and what it wrote is on the disk when it returns.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from harness.compression.fields import FIELDS, figures, finite
from harness.compression.model import Aurora, Entry
from harness.compression.ratios import AURORA_TOLERANCE, AURORA_WEIGHTS, aurora, with_ratios
from harness.errors import DataError, ResultError, UsageError
from harness.host.names import fact
from harness.tensorboard import tags
from harness.tensorboard.model_run import ModelRun, mapped

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

T = TypeVar("T")
Metrics = Mapping[str, Any]
PAIR = ("fp32", "int8")
# What every row of hyperparameters has: TensorBoard takes the columns of all from one of them.
HYPERPARAMETERS = ("precision", "bits", "scheme", "pruning_ratio", "calibration")
HEADLINES = (
    "accuracy", "f1_score", "latency_ms", "model_size_mb", "memory_mb", "energy_j", "accuracy_drop",
    "speedup", "size_ratio", "energy_ratio", "aurora",
)  # fmt: skip
_PRECISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}")
_OPEN_FILES = 64


class CompressionWriter:
    """What is logged about a model adds up: ratios use the latest figures of each precision.

    Metrics go by the board's names (``latency_ms``, ``energy_j``) or by the compression engine's
    (``latency_mean_ms``, ``energy_consumption_mw``): `harness.compression.fields.FIELDS`. Methods
    raise `DataError` for figures that are no measurements, `UsageError` for a name or step that
    makes no sense, and `ResultError` where the folder cannot be written.
    """

    def __init__(self, logdir: str | Path) -> None:
        """Make ``logdir`` if need be. Raises `ResultError`."""
        self.logdir = Path(logdir)
        self._models: dict[str, ModelRun] = {}  # the one used last is the last
        self._serial = itertools.count()
        with mapped(self.logdir):
            self.logdir.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ResultError:
            if kind is None:  # what went wrong first is not hidden
                raise

    def log_compression_comparison(
        self,
        model_name: str,
        fp32_metrics: Metrics,
        int8_metrics: Metrics,
        step: int = 0,
        *,
        precisions: tuple[str, str] = PAIR,
    ) -> tuple[Entry, ...]:
        """The figures of both precisions, and every ratio that they allow.

        ``precisions`` names any two, the reference first. Returns both entries: what was missing is
        in their ``missing``, which the metadata repeats.
        """
        both = _paired(precisions, fp32_metrics, int8_metrics)
        return self._add(model_name, both, step, precisions[0])

    def log_metrics(
        self, model_name: str, precision: str, metrics: Metrics, step: int = 0
    ) -> Entry:
        """The figures of one precision, such as a third one."""
        return self._add(model_name, {precision: metrics}, step)[0]

    def log_compression_ratios(
        self,
        model_name: str,
        fp32_metrics: Metrics,
        int8_metrics: Metrics,
        step: int = 0,
        *,
        precisions: tuple[str, str] = PAIR,
    ) -> dict[str, float]:
        """The ratios alone, by name; the figures are not logged."""
        both = _paired(precisions, fp32_metrics, int8_metrics)
        pair = [_entry(model_name, precision, metrics) for precision, metrics in both.items()]
        compared, at = with_ratios(pair, reference=precisions[0])[1], _step(step)
        with self._writing(model_name) as model:
            tags.write_ratios(model.file.at(at), compared)
        return compared.ratios

    def log_energy_comparison(
        self,
        model_name: str,
        fp32_energy: float,
        int8_energy: float,
        step: int = 0,
        *,
        unit: str = "J",
        precisions: tuple[str, str] = PAIR,
    ) -> dict[str, float]:
        """Energy per inference (unit ``J``) or average power (``mW``); returns the ratios.

        Power becomes energy only where the latencies are known, so log those first.
        """
        metric = {"J": "energy_j", "mW": "power_mw"}.get(unit)
        if metric is None:
            raise UsageError(f"unit is {unit!r}", "give J (per inference) or mW")
        both = _paired(precisions, {metric: fp32_energy}, {metric: int8_energy})
        return self._add(model_name, both, step, precisions[0])[-1].ratios

    def log_latency_distribution(
        self,
        model_name: str,
        fp32_latencies_ms: ArrayLike,
        int8_latencies_ms: ArrayLike,
        step: int = 0,
        *,
        precisions: tuple[str, str] = PAIR,
    ) -> None:
        """A histogram per precision, in bins 1 % wide."""
        both = _paired(precisions, fp32_latencies_ms, int8_latencies_ms)
        found = {
            precision: _histogram(f"{model_name}, {precision}", latencies)
            for precision, latencies in both.items()
        }
        at = _step(step)
        with self._writing(model_name) as model:
            for precision, fields in found.items():
                tags.write_latencies(model.file.at(at), model.model, precision, fields)

    def log_model_metadata(
        self, model_name: str, model_info: Mapping[str, Any], step: int = 0
    ) -> None:
        """What the model is (library, category, input shape, ...): shown beside its figures."""
        facts, at = {fact(key): fact(value) for key, value in model_info.items()}, _step(step)
        with self._writing(model_name) as model:
            model.info |= facts
            model.write_metadata(at)

    def log_aurora(
        self,
        model_name: str,
        step: int = 0,
        *,
        precision: str = PAIR[1],
        weights: Mapping[str, float] = AURORA_WEIGHTS,
        tolerance: float = AURORA_TOLERANCE,
    ) -> Aurora | None:
        """The score of what was logged so far, with other weights or tolerance if need be.

        None where the accuracy or every gain is missing; nothing is written then.
        """
        at = _step(step)
        with self._writing(model_name) as model:
            entry = next((e for e in model.entries() if e.precision == precision), None)
            score = aurora(entry.ratios, weights, tolerance) if entry else None
            if score is not None:
                model.scores[precision] = score
                tags.write_aurora(model.file.at(at), model.model, score.score)
                model.write_metadata(at)
        return score

    def log_hparams(
        self,
        model_name: str,
        hparams: Mapping[str, str | bool | float | None],
        metrics: Metrics | None = None,
    ) -> None:
        """One row per model: how it was compressed (bits, scheme, pruning_ratio, calibration, ...)
        against ``metrics``, by default the figures and ratios logged of the compressed precision.
        """
        given = self._headlines(model_name) if metrics is None else metrics
        values = {name: finite(f"{model_name}: {name}", v) for name, v in given.items()}
        row: dict[str, str | bool | float] = {
            "model": fact(model_name),
            **dict.fromkeys(HYPERPARAMETERS, ""),
        }
        row |= {
            fact(k): _plain(f"{model_name}: {k}", v) for k, v in hparams.items() if v is not None
        }
        columns = [f"headline/{name}" for name in dict.fromkeys((*HEADLINES, *values))]
        with self._writing(model_name) as model:
            feed = model.file.at(0)
            for name, value in values.items():
                feed.scalar(f"headline/{name}", value)
            feed.hparams(row, dict.fromkeys(columns, 0.0))

    def log_entries(self, entries: Sequence[Entry], step: int = 0) -> None:
        """Entries as `harness.tensorboard.importer` or `from_results` makes them."""
        at = _step(step)
        for entry in entries:
            precision = _precision(entry.precision)
            with self._writing(entry.model) as model:
                model.add(entry)
                model.write_figures([precision], at)
                model.write_metadata(at)

    def close(self) -> None:
        """Idempotent. Raises `ResultError`."""
        models, self._models = self._models, {}
        with mapped(self.logdir):
            for model in models.values():
                model.close()

    def _add(
        self, model_name: str, metrics: Mapping[str, Metrics], step: int, reference: str = ""
    ) -> tuple[Entry, ...]:
        added = [_entry(model_name, name, values) for name, values in metrics.items()]
        at = _step(step)
        with self._writing(model_name) as model:
            model.reference = reference or model.reference
            for entry in added:
                model.add(entry)
            model.write_figures(list(metrics), at)
            model.write_metadata(at)
        known = {entry.precision: entry for entry in model.entries()}
        return tuple(known[precision] for precision in metrics)

    def _headlines(self, model_name: str) -> dict[str, float]:
        with self._writing(model_name) as model:
            entry = model.compressed()
        if entry is None:
            return {}
        found = {name: figure.value for name, figure in entry.figures.items()} | entry.ratios
        if entry.aurora is not None:
            found["aurora"] = entry.aurora.score
        return {name: found[name] for name in HEADLINES if name in found}

    @contextmanager
    def _writing(self, model_name: str) -> Iterator[ModelRun]:
        """The run of a model; flushed at the end. Raises `UsageError` and `ResultError`."""
        _check_name(model_name)
        model = self._models.pop(model_name, None)
        model = model or ModelRun(self.logdir, model_name, self._file_name)
        self._models[model_name] = model
        with mapped(model.folder):
            open_runs = [run for run in self._models.values() if run.is_open and run is not model]
            for run in open_runs[: max(0, len(open_runs) - _OPEN_FILES + 1)]:
                run.close()
            try:
                yield model
                model.flush()
            except OSError:  # later calls begin another file, for there may be space again
                with suppress(OSError):
                    model.close()
                raise

    def _file_name(self) -> str:
        # TensorBoard reads the files of a folder in the order of their names
        order = f"{time.time():.0f}.{os.getpid()}.{next(self._serial):06d}"
        return f"events.out.tfevents.{order}.harness"


def _paired(precisions: Sequence[str], first: T, second: T) -> dict[str, T]:
    """By precision. Raises `UsageError`."""
    if len(precisions) != 2 or precisions[0] == precisions[1]:
        raise UsageError(f"precisions are {precisions!r:.60}", "give two, the reference first")
    return dict(zip(map(_precision, precisions), (first, second), strict=True))


def _entry(model: str, precision: str, metrics: Metrics) -> Entry:
    if not isinstance(metrics, Mapping):
        raise DataError(f"{model}, {precision}: metrics are {metrics!r:.60}", "give a mapping")
    found, missing, others = figures(f"{model}, {precision}", metrics)
    unknown = {fact(k)[:60]: v for k, v in others.items() if k not in FIELDS}
    texts = {name: fact(value) for name, value in unknown.items() if isinstance(value, str)}
    strange = dict.fromkeys(unknown.keys() - texts.keys(), "no metric that the board knows")
    return Entry(
        model=model, precision=_precision(precision), run="", figures=found,
        missing=missing | strange, info=texts,
    )  # fmt: skip


def _histogram(where: str, latencies_ms: ArrayLike) -> dict[str, Any]:
    import numpy as np

    from harness.stats.histogram import histogram_of

    try:
        values = np.asarray(latencies_ms, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: latencies are no numbers: {error}", "give milliseconds"
        ) from error
    if not len(values):
        raise DataError(f"{where}: no latencies", "give at least one")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0) & (values < 1e30)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: latency {first} is {values[first]:g}", "give finite milliseconds from 0 up"
        )
    return histogram_of(values.tolist())


def _check_name(model: object) -> None:
    try:
        if not isinstance(model, str):
            raise UsageError(f"model_name is {model!r:.60}", "give a text")
        model.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"model_name is {model!r:.60}", "give Unicode text") from error


def _precision(name: str) -> str:
    if not (isinstance(name, str) and _PRECISION.fullmatch(name)):
        raise UsageError(f"precision is {name!r:.60}", "give a short name such as int8")
    return name


def _step(step: int) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise UsageError(f"step is {step!r:.60}", "give a whole number from 0 up")
    return number


def _plain(where: str, value: object) -> str | bool | float:
    """A hyperparameter as TensorBoard keeps it. Raises `DataError` for NaN and infinity."""
    if isinstance(value, bool):
        return value
    return finite(where, value) if isinstance(value, int | float) else fact(value)
