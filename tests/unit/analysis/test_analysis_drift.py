"""Diagnosis: values by hand, and known processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from harness.analysis.drift import (
    autocorrelation,
    autocorrelation_time,
    between_launch_cv,
    diagnose,
    drift,
    effective_samples,
    outliers,
)
from harness.errors import MeasurementFailed
from harness.maybe import Unavailable

MS = 1_000_000


def test_autocorrelation_by_hand() -> None:
    # alternating around its mean, n = 10: nine products of -1 over ten squares of 1
    assert autocorrelation([np.tile([1.0, 3.0], 5)]) == pytest.approx(-0.9)


def test_launches_at_different_levels_are_not_autocorrelated() -> None:
    rng = np.random.default_rng(0)
    launches = [level + rng.standard_normal(5000) for level in (100.0, 200.0, 300.0)]
    found = autocorrelation(launches)
    assert isinstance(found, float)
    assert abs(found) < 0.03


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [100_000, 300_000])
def test_correlation_time_of_a_known_process(rho: float, n: int) -> None:
    rng = np.random.default_rng(1)
    samples = lfilter([1.0], [1.0, -rho], rng.standard_normal(n))
    tau = (1 + rho) / (1 - rho)
    assert autocorrelation_time(samples) == pytest.approx(tau, rel=0.1)
    assert effective_samples([samples, samples]) == pytest.approx(2 * n / tau, rel=0.1)
    assert autocorrelation([samples]) == pytest.approx(rho, abs=0.01)


def test_more_than_independent_is_not_credited() -> None:
    assert effective_samples([np.tile([1.0, 3.0], 50)]) == 100


def test_outliers_by_hand() -> None:
    # median 6000, MAD 3000: the limit is 6000 + 5 x 1.4826 x 3000 = 28239
    base = np.tile(np.arange(1000, 12_000, 1000), 100)
    assert outliers(base) == 0
    assert outliers(np.append(base, [28_239, 28_240, 500_000])) == 2


def test_outliers_among_equal_samples() -> None:
    # MAD 0; mean deviation of 96 ones, three twos and a hundred: 1.02; limit 1 + 5 x 1.278 = 7.39
    samples = np.array([1] * 96 + [2] * 3 + [100])
    assert outliers(samples) == 1
    assert outliers(np.ones(50, dtype=np.int64)) == 0


def test_drift_by_hand() -> None:
    assert drift([np.array([2.0] * 3 + [9.0] * 3 + [3.0] * 3)]) == 0.5
    assert drift([np.ones(9), np.linspace(1, 1, 9), np.repeat([1.0, 2.0, 4.0], 3)]) == 0.0
    short = drift([np.ones(8)])
    assert isinstance(short, Unavailable)
    assert short.reason == "the longest launch has 8 iterations; drift needs 9"


def test_between_launch_cv_by_hand() -> None:
    assert between_launch_cv([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert isinstance(between_launch_cv([1.0]), Unavailable)
    assert isinstance(between_launch_cv([0.0, 0.0]), Unavailable)


def test_diagnosis_of_a_ramp() -> None:
    ramp = np.linspace(1.0, 1.1, 3000) * MS
    found = diagnose([ramp])
    assert found.trend_rho == 1.0
    assert found.trend_p == 0.0
    # thirds have their medians at 1/6 and 5/6 of the way
    assert found.drift == pytest.approx((1 + 0.1 * 5 / 6) / (1 + 0.1 / 6) - 1, rel=1e-3)
    assert found.outliers == 0
    assert "5 x 1.4826 MAD" in found.outlier_rule
    assert isinstance(found.between_launch_cv, Unavailable)


def test_one_drifting_launch_among_five_is_seen() -> None:
    rng = np.random.default_rng(2)
    calm = [MS * np.exp(0.01 * rng.standard_normal(1000)) for _ in range(4)]
    found = diagnose([*calm, np.linspace(1.0, 1.1, 1000) * MS])
    assert found.trend_rho == 1.0
    assert found.trend_p == 0.0


def test_noise_alone_rarely_has_a_trend() -> None:
    rng = np.random.default_rng(3)
    p_values = [diagnose([MS * np.exp(0.1 * rng.standard_normal(200))]).trend_p for _ in range(400)]
    alarms = np.mean([isinstance(p, float) and p < 0.05 for p in p_values])
    assert alarms == pytest.approx(0.05, abs=0.02)


def test_a_fake_clock_has_no_correlation_and_no_outlier() -> None:
    found = diagnose([np.full(1000, MS)])
    for absent in (found.autocorrelation, found.effective_samples):
        assert isinstance(absent, Unavailable)
        assert absent.reason == "every iteration took the same time"
    assert (found.outliers, found.drift, found.trend_rho, found.trend_p) == (0, 0.0, 0.0, 1.0)


def test_few_and_no_iterations() -> None:
    found = diagnose([np.array([MS, 2 * MS])])
    for absent in (found.autocorrelation, found.effective_samples, found.drift, found.trend_p):
        assert isinstance(absent, Unavailable)
    with pytest.raises(MeasurementFailed):
        diagnose([])


# blocks of two whose medians tie in whole nanoseconds, and in milliseconds only by luck
@example([1, 1, 221, 443, *[1] * 17, 332], 19)
@given(st.lists(st.integers(1, 10**9), min_size=10, max_size=80), st.integers(2, 100))
@settings(deadline=None)
def test_diagnosis_does_not_depend_on_the_unit(values: list[int], factor: int) -> None:
    samples = np.array(values, dtype=np.int64)
    one, many = diagnose([samples]), diagnose([samples * factor])
    assert one.outliers == many.outliers
    for name in ("autocorrelation", "drift", "effective_samples", "trend_rho"):
        a, b = getattr(one, name), getattr(many, name)
        if isinstance(a, float):
            assert b == pytest.approx(a, rel=1e-6, abs=1e-9)
            assert math.isfinite(a)
