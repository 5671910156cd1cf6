"""The training log itself: where it lies, at which step it is, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import UsageError
from harness.training.alerts import Alarms, Alert, Stall, rule_named
from harness.training.projector import Projector
from harness.training.recorder import Recorder, table
from harness.training.system import SystemMonitor

DEFAULT_LOGDIR = "results"
TRAINING, VALIDATION, PER_STEP = "training", "validation", "training/step"


class Log:
    """What all that is logged of a training has in common; see `TrainingLogger`."""

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

    def _at(self, step: int | None, subject: Hashable) -> int:
        """Validation has no steps of its own: it happens at the training's."""
        if step is None and isinstance(subject, str) and subject.startswith(VALIDATION):
            return self._to.step
        return self._to.at(step, subject)

    def _due(self, every: int, step: int | None, subject: Hashable) -> int | None:
        """The step, where it is one of every ``every``."""
        at = self._to.at(step, subject)
        return at if self.enabled and every and at % every == 0 else None
