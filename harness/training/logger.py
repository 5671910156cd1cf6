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
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import DataError, ResultError, UsageError
from harness.maybe import explain
from harness.tensorboard import layouts
from harness.training import activations, arrays, graph, insight, pictures
from harness.training.alerts import Alarms, Alert, Stall, rule_named
from harness.training.projector import Projector
from harness.training.recorder import Recorder, flat, named, table
from harness.training.system import SystemMonitor

DEFAULT_LOGDIR = "results"
TRAINING, VALIDATION, PER_STEP = "training", "validation", "training/step"


class TrainingLogger:
    """Logs the training of ``model_name`` into a new run folder under ``logdir`` (``results``).

    ``log_gradients_every`` steps also holds for `log_weights`; 0 switches either off. ``on_alert``
    is called with each `Alert`; rules named in ``raise_on`` raise `TrainingAlert`; ``thresholds``
    replaces some of `harness.training.alerts.RULES`. ``device`` is whose sensors `log_system`
    reads: by default the GPU that torch computes on, else the CPU. Without ``enabled`` nothing is
    written, and no folder is made; alerts work all the same.

    Raises `UsageError`, or `ResultError` where ``logdir`` cannot be written.
    """

    def __init__(
        self,
        model_name: str,
        logdir: Path | str | None = None,
        log_gradients_every: int = 100,
        log_histograms_every: int = 500,
        *,
        on_alert: Callable[[Alert], object] | None = None,
        raise_on: Collection[str] = (),
        thresholds: Mapping[str, float] | None = None,
        device: str | None = None,
        enabled: bool = True,
    ) -> None:
        if min(log_gradients_every, log_histograms_every) < 0:
            raise UsageError("a logging frequency is negative", "give steps, or 0 for never")
        self.model_name = model_name
        self.log_gradients_every = log_gradients_every
        self.log_histograms_every = log_histograms_every
        rules = {rule_named(name).name for name in raise_on}
        self._to = Recorder(
            model_name, Path(logdir or DEFAULT_LOGDIR), Alarms(thresholds), on_alert, rules, enabled
        )
        self.enabled = enabled
        self._stall = Stall()
        self._projector = Projector(self.folder)  # which makes no folder before it is used
        self._device = device
        self._system: SystemMonitor | None = None
        self._absent = 0  # sensors that were told to be
        self._sums: dict[str, tuple[Any, int]] = {}
        self._began_s = time.monotonic()
        self._epochs = 0

    # -- life ------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the events lie."""
        return self._to.folder

    @property
    def problem(self) -> str | None:
        """Why nothing is written any more; None while all is well."""
        return self._to.events.problem

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Every onset so far."""
        return tuple(self._to.alerts)

    @property
    def step(self) -> int:
        return self._to.step

    @step.setter
    def step(self, step: int) -> None:
        self._to.next_step(self._to.at(step, "step") - self._to.step)

    def next_step(self) -> None:
        """The training has made one more step."""
        self._to.next_step()

    def close(self) -> None:
        """Write what is pending. Idempotent; what is logged later is dropped."""
        self._to.events.close()
        if self._system is not None:
            self._system.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._to.text("training/ended", table({"by": kind.__name__, "why": error}), self.step)
        self.close()

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

    # -- the model -------------------------------------------------------------------------------

    def log_gradients(self, model: Any, step: int | None = None) -> None:
        """Norms of the gradients, by parameter, by layer and in all; call it after ``backward``.

        ``model`` is a torch module, or gradients by parameter name.
        """
        step = self._due(self.log_gradients_every, step, ("gradients", id(model)))
        if step is not None:
            insight.gradient_norms(self._to, arrays.gradients(model), step)

    def log_weights(self, model: Any, step: int | None = None) -> None:
        """Norms of the weights, by parameter, by layer and in all."""
        step = self._due(self.log_gradients_every, step, ("weights", id(model)))
        if step is not None:
            insight.weight_norms(self._to, arrays.weights(model), step)

    def log_histograms(self, model: Any, step: int | None = None) -> None:
        """Distributions of weights and gradients, each from at most 16,384 of its elements."""
        step = self._due(self.log_histograms_every, step, ("histograms", id(model)))
        if step is None:
            return
        for kind, found in (("weights", arrays.weights), ("gradients", arrays.gradients)):
            for name, values in found(model).items():
                self._to.histogram(f"training/histograms/{kind}/{name}", values, step)

    def log_graph(self, model: Any, inputs: Any) -> None:
        """The model's graph, traced on ``inputs`` (a tensor or a tuple). Needs torch, TensorBoard.

        A model that cannot be traced leaves a text that says so.
        """
        try:
            self._to.events.graph(graph.trace(model, inputs))
        except graph.NoGraph as error:
            self._to.text("training/graph", f"no graph: {error}", self.step)

    def log_histogram(self, tag: str, values: Any, step: int | None = None) -> None:
        """The distribution of any ``values``, ``{model}/{tag}``, from at most 16,384 of them."""
        self._to.histogram(tag, values, self._at(step, ("histogram", tag)))

    def log_activations(
        self, model: Any, inputs: Any, layers: Sequence[str] | None = None, step: int | None = None
    ) -> dict[str, Any]:
        """What ``layers`` (names of modules; by default all that have none below) put out.

        ``inputs`` (a tensor, a tuple or a dict) go through the model once, without gradients and in
        evaluation mode, as which it is left as it was. Each layer's mean, standard deviation, share
        of zeros and distribution; returned are the outputs. Raises `DataError` for a name that is
        no layer.
        """
        found = activations.of(model, inputs, layers)
        insight.activations(self._to, found, self._at(step, "activations"))
        return found

    # -- what the model does ---------------------------------------------------------------------

    def log_attention(self, weights: Any, step: int | None = None) -> None:
        """Entropy (nats) and concentration of each head.

        ``weights``: of one layer [batch, heads, queries, keys], of several as a sequence or by
        name. Concentration is the mean weight of the strongest key.
        """
        insight.attention(self._to, weights, self._at(step, "attention"))

    def log_uncertainty(
        self, epistemic: Any, aleatoric: Any = None, step: int | None = None
    ) -> None:
        """Means and distributions; with both, the share of what more data could remove."""
        insight.uncertainty(self._to, epistemic, aleatoric, self._at(step, "uncertainty"))

    def log_calibration(
        self,
        probabilities: Any,
        labels: Any,
        prefix: str = VALIDATION,
        step: int | None = None,
    ) -> None:
        """Expected calibration error in 15 bins, confidence minus accuracy, a reliability picture.

        ``probabilities``: [samples, classes] after softmax, or [samples] of class 1.
        """
        at = self._at(step, f"{prefix}/calibration")
        insight.calibration(self._to, prefix, probabilities, labels, at)

    def log_representation(self, tag: str, embeddings: Any, step: int | None = None) -> None:
        """What tells of a collapse: std per dimension, norm, spread, effective rank.

        ``embeddings``: [..., dimensions].
        """
        insight.representation(self._to, tag, embeddings, self._at(step, ("representation", tag)))

    # -- pictures, texts, files ------------------------------------------------------------------

    def log_image(self, tag: str, image: Any, step: int | None = None) -> None:
        """[H, W], [channels, H, W] or [H, W, channels]; floats in [0, 1], or scaled into it."""
        self.log_images(tag, [image], 1, step)

    def log_images(
        self, tag: str, images: Any, columns: int | None = None, step: int | None = None
    ) -> None:
        """A grid of the first 64 of ``images``."""
        tiles = [arrays.to_numpy(image) for image in images[: insight.MAX_IMAGES]]
        at = self._at(step, ("image", tag))
        self._to.image(f"training/images/{tag}", pictures.grid(tiles, columns), at)

    def log_predictions(
        self,
        inputs: Any,
        predictions: Any,
        targets: Any,
        class_names: Sequence[str] | None = None,
        step: int | None = None,
    ) -> None:
        """The first 64 inputs in green or red frames, and a table of what was said of each.

        ``predictions``: [samples, classes] scores or [samples] labels. Inputs that are no images
        have the table alone.
        """
        at = self._at(step, "predictions")
        insight.predictions(self._to, inputs, predictions, targets, class_names, at)

    def log_confusion(
        self,
        predictions: Any,
        targets: Any,
        class_names: Sequence[str] | None = None,
        prefix: str = VALIDATION,
        step: int | None = None,
    ) -> None:
        """Which class is taken for which: a picture (up to 40 classes) and a table.

        ``predictions``: [samples, classes] scores or [samples] labels.
        """
        at = self._at(step, f"{prefix}/confusion")
        insight.confusion(self._to, prefix, predictions, targets, class_names, at)

    def log_embedding(
        self,
        tag: str,
        embeddings: Any,
        labels: Any = None,
        images: Any = None,
        step: int | None = None,
    ) -> None:
        """[samples, dimensions] for TensorBoard's projector, with labels and square thumbnails."""
        at = self._at(step, ("embedding", tag))
        vectors = self._to.finite(f"training/embedding/{tag}", embeddings, at)
        if vectors is None or self.problem is not None:
            return
        texts = (
            None
            if labels is None
            else [*(labels.tolist() if hasattr(labels, "tolist") else labels)]
        )
        tiles = None if images is None else [arrays.to_numpy(image) for image in images]
        try:
            self._projector.add(f"{self._to.model}/{tag}", at, vectors, texts, tiles)
        except (OSError, ResultError) as error:
            self._to.events.fail(f"the log ends here: {error}")

    def log_figure(self, tag: str, figure: Any, step: int | None = None) -> None:
        """A matplotlib figure, or anything else with ``savefig``: a loss landscape, collapse plots.

        Raises `DataError` for anything else. The figure stays open.
        """
        png, height, width = pictures.drawn(figure)
        at = self._at(step, ("figure", tag))
        self._to.png(f"training/figures/{tag}", png, height, width, at)

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

    # -- inside ----------------------------------------------------------------------------------

    def _at(self, step: int | None, subject: Hashable) -> int:
        """Validation has no steps of its own: it happens at the training's."""
        if step is None and isinstance(subject, str) and subject.startswith(VALIDATION):
            return self._to.step
        return self._to.at(step, subject)

    def _due(self, every: int, step: int | None, subject: Hashable) -> int | None:
        """The step, where it is one of every ``every``."""
        at = self._to.at(step, subject)
        return at if self.enabled and every and at % every == 0 else None
