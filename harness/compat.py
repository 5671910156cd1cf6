"""The names of the five guides that this project grew out of: change the import, keep the script.

    from harness.compat import CompressionWriter, log_benchmark_results      # the engine
    from harness.compat import TrainingLogger                                # the Compression Board
    from harness.compat import MetricsLogger                                 # joint embeddings
    from harness.compat import BayesianTransformerLogger, CheckpointManager  # the transformer

Each is a thin subclass or an alias: what it does is documented where its parent is, and new scripts
do better with `harness.board` and `harness.training`. Arguments of trackers that are not there
(``use_wandb``) are taken and left alone; each is named once, in the log ``harness.compat``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.compression.model import Board
from harness.errors import UsageError
from harness.tensorboard import importer
from harness.tensorboard.plain import PlainEvents
from harness.tensorboard.writer import CompressionWriter as _CompressionWriter
from harness.training.alerts import Alert
from harness.training.checkpoints import Checkpoint
from harness.training.checkpoints import CheckpointManager as _CheckpointManager
from harness.training.logger import TrainingLogger

__all__ = [
    "BayesianTransformerLogger",
    "CheckpointManager",
    "CompressionWriter",
    "MetricsLogger",
    "TrainingLogger",
    "log_benchmark_results",
]
_LOGGER = logging.getLogger("harness.compat")
_IS_BEST = "is_best"


# -- guides 0 to 2: the compression engine and its board ------------------------------------------


class CompressionWriter(_CompressionWriter):
    """`harness.board.CompressionWriter`, and what a script calls of a SummaryWriter beside it.

    Plain events lie in ``logdir`` itself; each curve of `add_scalars` in a folder of its own, as
    torch's SummaryWriter has it, so that FP32 and INT8 share a chart. The tab reads both.
    """

    def __init__(self, logdir: str | Path | None = None, comment: str = "", **others: Any) -> None:
        """``log_dir`` is another name of ``logdir`` (default ``runs``)."""
        place = Path(logdir or others.pop("log_dir", None) or "runs")
        _left_alone(others, ("purge_step", "max_queue", "flush_secs", "filename_suffix",
                             "write_to_disk"))  # fmt: skip
        super().__init__(place.with_name(place.name + comment) if comment else place)
        self.board: Board | None = None  # what `log_benchmark_results` read
        self._plain = PlainEvents(self.logdir)

    @property
    def log_dir(self) -> str:
        return str(self.logdir)

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, *_: Any, **__: Any
    ) -> None:
        self._plain.scalar(tag, scalar_value, global_step)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        self._plain.scalars(main_tag, tag_scalar_dict, global_step)

    def add_histogram(
        self, tag: str, values: Any, global_step: int | None = None, *_: Any, **__: Any
    ) -> None:
        self._plain.histogram(tag, values, global_step)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None, *_: Any, **__: Any
    ) -> None:
        self._plain.text(tag, text_string, global_step)

    def add_hparams(
        self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], *_: Any, **__: Any
    ) -> None:
        self._plain.hparams(hparam_dict, metric_dict)

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """As SummaryWriter takes it: category -> chart -> ["Multiline", [tag, ...]]."""
        self._plain.layout(layout)

    def flush(self) -> None:
        """Write what is pending. Raises `ResultError`."""
        self._plain.flush()

    def close(self) -> None:
        try:
            self._plain.close()
        finally:
            super().close()


def log_benchmark_results(
    json_path: str | Path, logdir: str | Path | None = None, **others: Any
) -> CompressionWriter:
    """Bring the engine's file into ``logdir`` (default ``results``), as `harness import` does.

    Returns a writer on the same folder, which more can be logged with and that wants to be closed;
    its ``board`` is what was read. Raises `DataError` and `ResultError`.
    """
    place = logdir or others.pop("log_dir", None) or "results"
    _left_alone(others, ())
    board = importer.log_benchmark_results(json_path, place)
    writer = CompressionWriter(place)
    writer.board = board
    return writer


# -- guide 3: the trainer of joint embeddings -----------------------------------------------------


class MetricsLogger(TrainingLogger):
    """`TrainingLogger` under the trainer's names.

    ``enabled=False`` (also ``use_tensorboard=False``) writes nothing; ``config`` becomes a table.
    Metrics without a prefix stand right below the experiment's name.
    """

    def __init__(
        self,
        experiment_name: str = "training",
        log_dir: Path | str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        enabled: bool = True,
        use_tensorboard: bool = True,
        log_gradients_every: int = 1,
        log_histograms_every: int = 1,
        on_alert: Callable[[Alert], object] | None = None,
        raise_on: Collection[str] = (),
        **others: Any,
    ) -> None:
        experiment_name = others.pop("model_name", experiment_name)
        place = log_dir or others.pop("logdir", None)
        _left_alone(others, ())
        super().__init__(
            experiment_name, place, log_gradients_every, log_histograms_every,
            on_alert=on_alert, raise_on=raise_on, enabled=enabled and use_tensorboard,
        )  # fmt: skip
        if config is not None:
            self.log_config(config)

    def log_metrics(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        metrics: Mapping[str, Any],
        step: Any = None,
        prefix: Any = "",
        commit: bool = True,
    ) -> None:
        """``prefix`` may end in a slash, as in ``train/``, and is left out where it is empty. Both
        orders of ``step`` and ``prefix`` are understood."""
        _log_below(self, metrics, prefix, step)

    def log_model_gradients(self, model: Any, step: int | None = None, **_: Any) -> None:
        self.log_gradients(model, step)

    def log_model_weights(self, model: Any, step: int | None = None, **_: Any) -> None:
        """Norms and distributions."""
        self.log_weights(model, step)
        self.log_histograms(model, self.step if step is None else step)

    def accumulate_metrics(self, metrics: Mapping[str, Any]) -> None:
        self.accumulate(metrics)

    def log_accumulated_metrics(
        self, step: int | None = None, prefix: str = "", reset: bool = True
    ) -> dict[str, float]:
        """The means since the last call. They always begin anew."""
        means = self.flush()
        _log_below(self, means, prefix, step)
        return means

    def aggregate(self, step: int | None = None, prefix: str = "") -> dict[str, float]:
        return self.log_accumulated_metrics(step, prefix)

    def log_system_metrics(self, step: int | None = None) -> dict[str, float]:
        return self.log_system(step)

    def log_hyperparameters(self, hparams: Any, metrics: Mapping[str, Any] | None = None) -> None:
        self.log_hparams(hparams, metrics)

    def finish(self) -> None:
        self.close()


# -- guide 4: the Bayesian transformer ------------------------------------------------------------


class BayesianTransformerLogger(TrainingLogger):
    """`TrainingLogger` under the transformer's names."""

    def __init__(
        self,
        log_dir: Path | str | None = None,
        experiment_name: str = "bayesian_transformer",
        log_gradients_every: int = 100,
        log_histograms_every: int = 500,
        *,
        on_alert: Callable[[Alert], object] | None = None,
        raise_on: Collection[str] = (),
        thresholds: Mapping[str, float] | None = None,
        device: str | None = None,
        enabled: bool = True,
        **others: Any,
    ) -> None:
        place = log_dir or others.pop("logdir", None)
        _left_alone(others, ("flush_secs", "max_queue", "comment"))
        super().__init__(
            experiment_name, place, log_gradients_every, log_histograms_every, on_alert=on_alert,
            raise_on=raise_on, thresholds=thresholds, device=device, enabled=enabled,
        )  # fmt: skip

    @property
    def log_dir(self) -> Path:
        """Where the events lie."""
        return self.folder

    @property
    def global_step(self) -> int:
        return self.step

    @global_step.setter
    def global_step(self, step: int) -> None:
        self.step = step

    def increment_step(self, count: int = 1) -> None:
        self._to.next_step(count)

    def log_metrics(
        self, metrics: Mapping[str, Any], prefix: Any = "train", step: Any = None
    ) -> None:
        """``train/`` and ``train`` are one prefix."""
        _log_below(self, metrics, prefix, step)

    def log_attention_stats(
        self, attention_weights: Any, layer_name: str | None = None, step: int | None = None
    ) -> None:
        """Entropy and concentration by head; ``layer_name`` names the only layer."""
        named = attention_weights if layer_name is None else {layer_name: attention_weights}
        self.log_attention(named, step)

    def log_uncertainty_metrics(
        self,
        epistemic: Any = None,
        aleatoric: Any = None,
        step: int | None = None,
        *,
        epistemic_uncertainty: Any = None,
        aleatoric_uncertainty: Any = None,
    ) -> None:
        """Also a mapping that has both by name, as its first argument."""
        if isinstance(epistemic, Mapping):
            aleatoric = _named_like("aleatoric", epistemic, aleatoric)
            epistemic = _named_like("epistemic", epistemic, None)
        epistemic = epistemic_uncertainty if epistemic is None else epistemic
        aleatoric = aleatoric_uncertainty if aleatoric is None else aleatoric
        self.log_uncertainty(epistemic, aleatoric, step)

    def log_model_histograms(self, model: Any, step: int | None = None) -> None:
        self.log_histograms(model, step)


class CheckpointManager(_CheckpointManager):
    """`harness.training.CheckpointManager`, told by ``is_best`` which checkpoint is the best.

    The last that was saved with it is kept beside the newest ``max_keep``. With a ``monitor``, that
    metric decides instead, and ``is_best`` is only kept.
    """

    def __init__(
        self,
        checkpoint_dir: Path | str,
        max_keep: int = 3,
        monitor: str | None = None,
        mode: Any = None,
        **others: Any,
    ) -> None:
        max_keep = others.pop("max_checkpoints", max_keep)
        _left_alone(others, ())
        super().__init__(
            checkpoint_dir, max_keep, monitor or _IS_BEST, mode or ("min" if monitor else "max")
        )

    @property
    def checkpoint_dir(self) -> Path:
        return self.folder

    def save_checkpoint(
        self,
        model: Any,
        optimizer: Any = None,
        scheduler: Any = None,
        epoch: int = 0,
        step: int = 0,
        metrics: Mapping[str, Any] | None = None,
        is_best: bool = False,
    ) -> Path:
        """As `save`. The epoch is in the checkpoint's state, under ``extra``."""
        number = self._next()  # a later one is better than all before
        best = {_IS_BEST: float(number)} if is_best else {}
        found = {**(metrics or {}), **best}
        return self.save(step, model, optimizer, scheduler, found, {"epoch": epoch})

    def load_checkpoint(
        self, model: Any, optimizer: Any = None, scheduler: Any = None, best: bool = False
    ) -> Checkpoint | None:
        """Put the newest, or the best, back into what is given; None where there is none."""
        return self.resume(model, optimizer, scheduler, "best" if best else "latest")


# -- what they share ------------------------------------------------------------------------------


def _log_below(logger: TrainingLogger, metrics: Mapping[str, Any], prefix: Any, step: Any) -> None:
    """Whichever of the two is the text is the prefix."""
    if isinstance(step, str) or (isinstance(prefix, int) and not isinstance(prefix, bool)):
        prefix, step = step, prefix
    told = prefix or ""
    if not isinstance(told, str):
        raise UsageError(f"prefix is {prefix!r:.60}", "give a text such as train")
    place = told.strip("/")
    for name, value in metrics.items():
        whole = f"{place}/{str(name).strip('/')}".lstrip("/")
        logger.log_metric(whole, value, step)


def _named_like(what: str, found: Mapping[str, Any], otherwise: Any) -> Any:
    return next((value for name, value in found.items() if what in str(name)), otherwise)


_told: set[str] = set()


def _left_alone(others: Mapping[str, Any], quietly: Collection[str]) -> None:
    """Take arguments that mean nothing here, and name each once."""
    for name, value in others.items():
        if name not in quietly and value not in (None, False, "") and name not in _told:
            _told.add(name)
            _LOGGER.warning("%s=%.60r means nothing to Harness and is left alone", name, value)
