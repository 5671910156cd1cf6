"""What goes wrong in training, as named rules with thresholds.

A rule looks at one figure, for each subject (a layer's head, a tag, a metric) on its own:

    value ─────────╮              ╭──── threshold: onset, said once
                   │  silent      │
                   ╰──────────────╯──── clears: only from here can it begin again

A rule that fires above its threshold also fires for NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from harness.errors import HarnessError, UsageError


class TrainingAlert(HarnessError):
    """Raised out of a logging call, for the rules named in ``raise_on`` alone."""

    exit_code = 1


class Rule(msgspec.Struct, frozen=True):
    """``fires`` above or below ``threshold``; over once the value is beyond ``clears``."""

    name: str
    figure: str  # what is looked at, unit included
    fires: str  # above | below
    threshold: float
    clears: float
    advice: str

    def fired(self, value: float) -> bool:
        return not value <= self.threshold if self.fires == "above" else value < self.threshold

    def cleared(self, value: float) -> bool:
        return value < self.clears if self.fires == "above" else value > self.clears


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("gradient_explosion", "total gradient norm", "above", 100.0, 50.0,
             "clip the gradients, or lower the learning rate"),
        Rule("gradient_vanishing", "total gradient norm", "below", 1e-6, 1e-5,
             "look at activations and initialisation; is the loss connected to the model?"),
        Rule("attention_entropy", "attention entropy of a head, nats", "below", 0.1, 0.15,
             "the head looks at one key alone: lower the learning rate, or normalise the logits"),
        Rule("representation_collapse", "spread of the embeddings over their size",
             "below", 0.01, 0.02,
             "all inputs are embedded alike: look at the loss that should keep them apart"),
        Rule("dimensional_collapse", "effective rank over the greatest possible",
             "below", 0.1, 0.15,
             "the embeddings fill few of their dimensions: regularise their covariance"),
        Rule("non_finite_loss", "number of values not finite", "above", 0.0, 0.5,
             "lower the learning rate, or look for a division by zero in the last step"),
        Rule("non_finite_value", "number of values not finite", "above", 0.0, 0.5,
             "look at what was computed just before"),
        Rule("overconfidence", "mean confidence minus accuracy", "above", 0.1, 0.05,
             "calibrate with a temperature, or smooth the labels"),
        Rule("underconfidence", "accuracy minus mean confidence", "above", 0.1, 0.05,
             "calibrate with a temperature, or smooth the labels less"),
        Rule("stalled_training", "epochs since the training loss last improved by 0.1 %",
             "above", 9.0, 1.0,
             "change the learning rate, or stop"),
    )
}  # fmt: skip


class Alert(msgspec.Struct, frozen=True):
    """An onset. ``subject`` is empty where the rule has but one."""

    rule: str
    subject: str
    value: float
    threshold: float
    step: int
    message: str


class Alarms:
    """The rules at work. ``thresholds`` replaces some; their distance to clearing is scaled along.

    Raises `UsageError` for a rule that does not exist, or a threshold that is none.
    """

    def __init__(self, thresholds: Mapping[str, float] | None = None) -> None:
        self.rules = dict(RULES)
        self.changed = False  # by the last check
        self._active: set[tuple[str, str]] = set()
        for name, threshold in (thresholds or {}).items():
            self.rules[name] = _moved(rule_named(name), threshold)

    def check(self, name: str, value: float, step: int, subject: str = "") -> Alert | None:
        """The alert, if its onset is now. ``changed`` tells of an end as well."""
        rule, key = self.rules[name], (name, subject)
        active = key in self._active
        self.changed = rule.cleared(value) if active else rule.fired(value)
        if active and self.changed:
            self._active.remove(key)
        if active or not self.changed:
            return None
        self._active.add(key)
        return Alert(name, subject, value, rule.threshold, step, _message(rule, value, subject))

    def active(self, name: str) -> int:
        """For how many subjects the rule has fired and not cleared."""
        return sum(rule == name for rule, _ in self._active)


def rule_named(name: str) -> Rule:
    """Raises `UsageError` that lists the rules."""
    if name not in RULES:
        raise UsageError(f"unknown alert {name!r}", f"one of {', '.join(RULES)}")
    return RULES[name]


def _moved(rule: Rule, threshold: float) -> Rule:
    if not (math.isfinite(threshold) and threshold >= 0):
        raise UsageError(
            f"the threshold of {rule.name} is {threshold!r}", "give a number from 0 on"
        )
    clears = rule.clears
    if rule.threshold > 0:
        clears = threshold * rule.clears / rule.threshold
    return msgspec.structs.replace(rule, threshold=threshold, clears=clears)


def _message(rule: Rule, value: float, subject: str) -> str:
    of = f" of {subject}" if subject else ""
    limit = f"{rule.fires} {rule.threshold:.4g}"
    return f"{rule.name}{of}: {rule.figure} is {value:.4g}, {limit}; {rule.advice}"


class Stall:
    """Epochs since a loss last fell by a thousandth of its best value."""

    IMPROVEMENT = 1e-3

    def __init__(self) -> None:
        self._best = math.inf
        self.epochs = 0

    def update(self, loss: float) -> int:
        """Count one more epoch; a loss that is not finite is no improvement."""
        if loss < self._best - self.IMPROVEMENT * abs(self._best if self._best < math.inf else 0):
            self._best, self.epochs = loss, 0
        else:
            self.epochs += 1
        return self.epochs
