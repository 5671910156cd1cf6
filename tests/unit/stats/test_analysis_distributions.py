"""Our distributions against scipy's, and against values known in closed form."""

from __future__ import annotations

import math

import pytest
from scipy import special, stats

from harness.stats import distributions as d


@pytest.mark.parametrize("x", [-30.0, -8.0, -1.959963984540054, -1e-9, 0.0, 0.3, 2.5, 8.0])
def test_normal_cdf(x: float) -> None:
    assert d.normal_cdf(x) == pytest.approx(stats.norm.cdf(x), rel=1e-12, abs=1e-320)


@pytest.mark.parametrize("p", [1e-12, 0.005, 0.025, 0.5, 0.8, 0.975, 1 - 1e-9])
def test_normal_ppf(p: float) -> None:
    assert d.normal_ppf(p) == pytest.approx(stats.norm.ppf(p), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("a", [0.5, 1.0, 3.7, 200.0, 40_000.0])
@pytest.mark.parametrize("b", [0.5, 1.0, 12.5, 1000.0])
@pytest.mark.parametrize("where", [0.0, 1e-6, 0.3, 0.9, 1.0, 1.1, 3.0])
def test_regularized_beta(a: float, b: float, where: float) -> None:
    x = min(1.0, where * a / (a + b))
    assert d.regularized_beta(a, b, x) == pytest.approx(
        special.betainc(a, b, x), rel=1e-9, abs=1e-12
    )


def test_regularized_beta_in_closed_form() -> None:
    # I_x(1, 1) is the uniform cdf; I_x(2, 1) = x^2; I_x(1, 3) = 1 - (1 - x)^3
    assert d.regularized_beta(1, 1, 0.37) == pytest.approx(0.37, rel=1e-14)
    assert d.regularized_beta(2, 1, 0.37) == pytest.approx(0.37**2, rel=1e-14)
    assert d.regularized_beta(1, 3, 0.37) == pytest.approx(1 - 0.63**3, rel=1e-14)


@pytest.mark.parametrize("dof", [1.0, 2.0, 4.0, 7.31, 19.0, 120.0, 1e5])
@pytest.mark.parametrize("p", [1e-9, 0.005, 0.025, 0.2, 0.4999, 0.5, 0.9, 0.975, 0.995])
def test_student_t(p: float, dof: float) -> None:
    assert d.student_t_ppf(p, dof) == pytest.approx(stats.t.ppf(p, dof), rel=1e-9, abs=1e-12)
    for t in (-30.0, -2.0, -1e-4, 0.0, 0.7, 5.0, math.inf, -math.inf):
        assert d.student_t_cdf(t, dof) == pytest.approx(stats.t.cdf(t, dof), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1, 6, 36, 368, 3688])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.99, 0.999])
def test_binomial(n: int, p: float) -> None:
    for k in {-1, 0, n // 2, int(n * p), n - 1, n, n + 3}:
        assert d.binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-10)
    for probability in (0.025, 0.5, 0.975):
        assert d.binomial_ppf(probability, n, p) == stats.binom.ppf(probability, n, p)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, math.nan])
def test_quantiles_outside_the_open_interval_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match="not within"):
        d.normal_ppf(p)
    with pytest.raises(ValueError, match="not within"):
        d.student_t_ppf(p, 3.0)


def test_bad_beta_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a, b > 0"):
        d.regularized_beta(0.0, 1.0, 0.5)
