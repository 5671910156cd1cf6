"""Rules of training alerts: onset, hysteresis, thresholds, and what a logger does about them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.errors import UsageError
from harness.training import RULES, Alert, TrainingAlert, TrainingLogger
from harness.training.alerts import Alarms, Stall

# rule -> values in turn, and whether each is an onset
COURSES: dict[str, list[tuple[float, bool]]] = {
    "gradient_explosion": [(100, False), (101, True), (70, False), (200, False), (49, False),
                           (math.nan, True), (1, False), (math.inf, True)],
    "gradient_vanishing": [(1e-6, False), (9e-7, True), (5e-6, False), (2e-5, False), (0, True)],
    "attention_entropy": [(0.1, False), (0.09, True), (0.12, False), (0.16, False), (0.05, True)],
    "representation_collapse": [(0.01, False), (0.0, True), (0.015, False), (0.03, False),
                                (0.009, True)],
    "dimensional_collapse": [(0.1, False), (0.05, True), (0.12, False), (0.2, False), (0, True)],
    "non_finite_loss": [(0, False), (1, True), (1, False), (0, False), (1, True)],
    "non_finite_value": [(0, False), (3, True), (0, False), (3, True)],
    "overconfidence": [(0.1, False), (0.11, True), (0.07, False), (0.04, False), (0.2, True)],
    "underconfidence": [(0.1, False), (0.11, True), (0.07, False), (0.04, False), (0.2, True)],
    "stalled_training": [(9, False), (10, True), (11, False), (0, False), (10, True)],
}  # fmt: skip


def test_every_rule_has_a_course_and_is_in_the_document() -> None:
    assert set(COURSES) == set(RULES)
    document = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    assert [name for name in RULES if f"`{name}`" not in document] == []


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_is_said_once_per_onset(rule: str) -> None:
    alarms = Alarms()
    said = [alarms.check(rule, value, 0) is not None for value, _ in COURSES[rule]]
    assert said == [onset for _, onset in COURSES[rule]]


def test_subjects_are_apart() -> None:
    alarms = Alarms()
    assert alarms.check("attention_entropy", 0.0, 0, "layer0/head0")
    assert alarms.check("attention_entropy", 0.0, 0, "layer0/head1")
    assert alarms.active("attention_entropy") == 2


def test_a_threshold_of_ones_own_takes_its_hysteresis_along() -> None:
    alarms = Alarms({"gradient_explosion": 10})
    onsets = [bool(alarms.check("gradient_explosion", v, 0)) for v in (11, 6, 11, 4, 11)]
    assert onsets == [True, False, False, False, True]


@pytest.mark.parametrize("thresholds", [{"no_such": 1.0}, {"overconfidence": math.nan}])
def test_thresholds_that_make_no_sense_are_refused(thresholds) -> None:
    with pytest.raises(UsageError):
        Alarms(thresholds)


def test_a_stall_counts_epochs_without_improvement() -> None:
    stall = Stall()
    losses = (1.0, 0.9995, 1.2, math.nan, 0.99, 0.99)
    assert [stall.update(loss) for loss in losses] == [0, 1, 2, 3, 0, 1]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_onset_and_end_are_events_and_the_callback_is_told(tmp_path: Path) -> None:
    told: list[Alert] = []
    with TrainingLogger("net", tmp_path, 1, 0, on_alert=told.append) as logger:
        for step, size in enumerate((1.0, 500.0, 600.0, 1.0)):
            logger.log_gradients({"w": np.array([size])}, step=step)
    (alert,) = told
    assert (alert.rule, alert.value, alert.threshold, alert.step) == (
        "gradient_explosion", 500.0, 100.0, 1,
    )  # fmt: skip
    assert alert.message.startswith("gradient_explosion: total gradient norm is 500, above 100; ")
    assert logger.alerts == (alert,)
    events = read(logger.folder)
    marks = [(e.step, e.value) for e in events.Scalars("net/training/alerts/gradient_explosion")]
    assert marks == [(1, 1.0), (3, 0.0)]
    (text,) = events.Tensors("net/training/alerts/text/gradient_explosion")
    assert b"500, above 100" in text.tensor_proto.string_val[0]


def test_gradients_that_are_not_finite_are_one_alert_and_are_named(tmp_path: Path) -> None:
    gradients = {"a.w": np.array([math.nan]), "a.b": np.array([1.0]), "c": np.array([2.0])}
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_gradients(gradients)
        logger.log_weights(gradients)
    assert [(alert.rule, alert.subject) for alert in logger.alerts] == [
        ("gradient_explosion", ""), ("non_finite_value", "training/weights"),
    ]  # fmt: skip
    events = read(logger.folder)
    (text,) = events.Tensors("net/training/gradients/not_finite")
    assert text.tensor_proto.string_val[0] == b"a.w"
    norms = {tag for tag in events.Tags()["scalars"] if "/gradients/" in tag}
    assert norms == {
        f"net/training/gradients/{n}" for n in ("parameter/a.b", "parameter/c", "layer/c")
    }


def test_a_loss_that_is_not_finite_is_an_alert_and_no_point(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        for step, loss in enumerate((1.0, math.nan, math.inf, 0.5, math.nan)):
            logger.log_metrics({"loss": loss, "accuracy": 0.5}, "training", step)
    assert [(a.rule, a.step) for a in logger.alerts] == [
        ("non_finite_loss", 1), ("non_finite_loss", 4),
    ]  # fmt: skip
    points = [(e.step, e.value) for e in read(logger.folder).Scalars("net/training/loss")]
    assert points == [(0, 1.0), (3, 0.5)]


def test_only_what_was_asked_for_is_raised(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path, 1, raise_on=("non_finite_loss",)) as logger:
        logger.log_gradients({"w": np.array([1e9])})
        with pytest.raises(TrainingAlert, match="non_finite_loss of validation/loss"):
            logger.log_epoch(0, 1.0, val_loss=math.nan)
    assert [alert.rule for alert in logger.alerts] == ["gradient_explosion", "non_finite_loss"]
    with pytest.raises(UsageError, match="unknown alert 'no_such'"):
        TrainingLogger("net", tmp_path, raise_on=("no_such",))


def test_ten_epochs_without_improvement_are_a_stall(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        for epoch in range(12):
            logger.log_epoch(epoch, 1.0)
    assert [(a.rule, a.step) for a in logger.alerts] == [("stalled_training", 10)]


def test_confidence_attention_and_collapse_raise_their_alerts(tmp_path: Path) -> None:
    with TrainingLogger("net", tmp_path) as logger:
        logger.log_calibration(np.array([[0.95, 0.05]] * 4), np.array([0, 1, 1, 0]))
        logger.log_calibration(np.array([[0.55, 0.45]] * 4), np.zeros(4), prefix="training", step=1)
        logger.log_attention([np.eye(4)[None, None]])
        logger.log_representation("features", np.ones((8, 4)))
        logger.log_representation("nan", np.full((8, 4), math.nan))
    assert [(alert.rule, alert.subject) for alert in logger.alerts] == [
        ("overconfidence", "validation"),
        ("underconfidence", "training"),
        ("attention_entropy", "layer0/head0"),
        ("representation_collapse", "features"),
        ("dimensional_collapse", "features"),
        ("non_finite_value", "training/representation/nan"),
    ]
