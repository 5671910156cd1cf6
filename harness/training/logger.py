"""`TrainingLogger`: a model's training as TensorBoard events, beside its benchmark runs.

    with TrainingLogger("digits", logdir="results") as logger:
        for epoch in range(epochs):
            for batch in batches:
                ...                                   # forward, backward, step
                logger.accumulate({"loss": loss, "accuracy": accuracy})
                logger.log_gradients(model)           # does nothing but every 100th time
                logger.next_step()
            means = logger.flush()
            logger.log_epoch(epoch, means["loss"], means["accuracy"], val_loss=..., val_acc=...)

Tags are ``{model}/training/...`` and ``{model}/validation/...``. The step counter starts at 0 and
moves by `next_step` or by assigning ``logger.step``. Whoever does neither is not left with all
points in one place: what comes a second time about the training begins the next step by itself.
Every method takes a ``step`` that goes before the counter. `log_epoch` counts in epochs.

What is wrong with the machine (disk full, folder gone) ends the log with one warning
(``logger.problem``) and never the training. What is wrong with a call raises `DataError`. A value
that is not finite is an alert, and no point of a curve.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.maybe import explain
from harness.tensorboard import layouts
from harness.training import arrays
from harness.training.log import PER_STEP, TRAINING, VALIDATION
from harness.training.of_model import ModelLog
from harness.training.of_pictures import PictureLog
from harness.training.recorder import flat, named, table
from harness.training.system import SystemMonitor


class TrainingLogger(ModelLog, PictureLog):
    """Logs the training of ``model_name`` into a new run folder under ``logdir`` (``results``).

    ``log_gradients_every`` steps also holds for `log_weights`; 0 switches either off. ``on_alert``
    is called with each `Alert`; rules named in ``raise_on`` raise `TrainingAlert`; ``thresholds``
    replaces some of `harness.training.alerts.RULES`. ``device`` is whose sensors `log_system`
    reads: by default the GPU that torch computes on, else the CPU. Without ``enabled`` nothing is
    written, and no folder is made; alerts work all the same.

    Raises `UsageError`, or `ResultError` where ``logdir`` cannot be written.
    """

    # -- metrics ---------------------------------------------------------------------------------

    def log_epoch(
        self,
        epoch: int,
        train_loss: Any = None,
        train_acc: Any = None,
        train_f1: Any = None,
        val_loss: Any = None,
        val_acc: Any = None,
        val_f1: Any = None,
        sensitivity: Any = None,
        specificity: Any = None,
        learning_rate: Any = None,
    ) -> None:
        """The curves ``{model}/{training,validation}/{loss,accuracy,f1_score}``, by epoch.

        Sensitivity and specificity belong to the validation. What is None is left out.
        """
        epoch = self._to.at(epoch, "epoch")
        self._to.scalars(
            TRAINING,
            {"loss": train_loss, "accuracy": train_acc, "f1_score": train_f1,
             "learning_rate": learning_rate},
            epoch,
        )  # fmt: skip
        self._to.scalars(
            VALIDATION,
            {"loss": val_loss, "accuracy": val_acc, "f1_score": val_f1,
             "sensitivity": sensitivity, "specificity": specificity},
            epoch,
        )  # fmt: skip
        self._epochs += 1
        if train_loss is not None:
            stalled = self._stall.update(arrays.to_float("train_loss", train_loss))
            self._to.check("stalled_training", stalled, epoch)

    def log_metrics(
        self, metrics: Mapping[str, Any], prefix: str = PER_STEP, step: int | None = None
    ) -> None:
        """Each as ``{model}/{prefix}/{name}``.

        The default prefix keeps points by step apart from `log_epoch`'s, which are by epoch.
        """
        for name, value in metrics.items():
            self.log_metric(f"{prefix}/{name}", value, step)

    def log_metric(self, name: str, value: Any, step: int | None = None) -> None:
        """One as ``{model}/{name}``."""
        self._to.scalar(name, value, self._at(step, name))

    def accumulate(self, metrics: Mapping[str, Any]) -> None:
        """Add to the means that `flush` takes. Tensors stay where they are until then."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            tensor = arrays.is_tensor(value)
            number = value.detach().float() if tensor else arrays.to_float(name, value)
            self._sums[name] = (total + number, count + 1)

    def flush(self, prefix: str | None = None, step: int | None = None) -> dict[str, float]:
        """The mean of each metric since the last flush; logged under ``prefix`` where one is given.

        Not both this and `log_epoch` under the same prefix: their steps differ.
        """
        sums, self._sums = self._sums, {}
        means = {n: arrays.to_float(n, total) / count for n, (total, count) in sums.items()}
        if prefix is not None:
            self.log_metrics(means, prefix, step)
        return means

    def log_learning_rate(self, optimizer: Any, step: int | None = None) -> None:
        """``training/learning_rate/group0`` and so on: one curve per parameter group."""
        step = self._at(step, ("learning_rate", id(optimizer)))
        for index, group in enumerate(optimizer.param_groups):
            self._to.scalar(f"training/learning_rate/group{index}", group["lr"], step)

    def log_early_stopping(
        self,
        epoch: int,
        reason: str = "",
        best_epoch: int | None = None,
        best_value: Any = None,
        monitor: str = "val_loss",
        patience: int | None = None,
    ) -> None:
        """That training stopped early, and what it goes back to."""
        epoch = self._to.at(epoch, "early stopping")
        found = {"epoch": epoch, "best_epoch": best_epoch, "best_value": best_value}
        known = {name: value for name, value in found.items() if value is not None}
        self._to.scalars("training/early_stopping", known, epoch)
        rows = {**known, "monitor": monitor, "patience": patience, "reason": reason}
        rows = {name: value for name, value in rows.items() if value not in (None, "")}
        self._to.text("training/early_stopping/text", table(rows), epoch)

    def log_training_summary(self, summary: Mapping[str, Any] | None = None, **more: Any) -> None:
        """A table of what came out, with epochs, steps, seconds and alerts added to it."""
        rows = {
            **(summary or {}),
            **more,
            "epochs": self._epochs,
            "steps": self.step,
            "duration_s": round(time.monotonic() - self._began_s, 3),
            "alerts": len(self.alerts),
        }
        self._to.text("training/summary", table(rows), self.step)

    # -- tables and sensors ----------------------------------------------------------------------

    def log_hparams(
        self, hparams: Any, metrics: Mapping[str, Any] | None = None, step: int | None = None
    ) -> None:
        """The row of this training in the HPARAMS tab: what it was given, and what came out.

        ``hparams``: a mapping, a dataclass or a namespace; nested names are dotted. ``metrics``
        become scalars ``hparams/{name}``; `harness.training.best_configuration` finds the best.
        """
        values = flat(self._named(hparams))
        found = {f"hparams/{name}": value for name, value in (metrics or {}).items()}
        at = self._at(step, "hparams")
        for name, value in found.items():
            self._to.scalar(name, value, at)
        self._to.hparams(values, [*found], at)

    def log_layout(self, layout: Mapping[str, Mapping[str, Sequence[str]]] | None = None) -> None:
        """Charts of the CUSTOM SCALARS tab: category -> chart -> tags of its curves.

        A tag is what stands below the model (``training/loss``), or a regular expression of that.
        Without a ``layout``: training over validation for loss, accuracy and F1, learning rates,
        gradient norms. The tab takes one layout a run, the last.
        """
        self._to.layout(layouts.TRAINING if layout is None else layout, self.step)

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Markdown, shown in TensorBoard's TEXT tab."""
        self._to.text(f"training/text/{tag}", text, self._at(step, ("text", tag)))

    def log_config(self, config: Any) -> None:
        """What the training was asked to do, as a table: a mapping, a dataclass or a namespace.

        Nested ones get dotted names. Raises `DataError` for anything else.
        """
        self._to.text("training/config", table(self._named(config)), self.step)

    @staticmethod
    def _named(config: Any) -> dict[str, object]:
        names = named(config)
        if names is None:
            raise DataError(
                f"a configuration of type {type(config).__name__} has no names",
                "give a mapping, a dataclass or a namespace",
            )
        return names

    def log_system(self, step: int | None = None) -> dict[str, float]:
        """Every sensor now, ``training/system/memory/rss_bytes`` and so on; returned as well.

        Rates (CPU use, power from energy counters) are since the call before. What cannot be read
        is listed once, with its reason.
        """
        step = self._at(step, "system")
        self._system = self._system or SystemMonitor(self._device)
        found = self._system.read()
        self._to.scalars("training/system", found, step)
        absent = {name: explain(why) for name, why in self._system.absent.items()}
        if len(absent) > self._absent:  # at first, and when a sensor breaks
            self._to.text("training/system/absent", table(absent, ("sensor", "why")), step)
            self._absent = len(absent)
        return found
