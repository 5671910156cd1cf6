"""Is B less accurate than A? Both answered the same samples: only those that they differ on count.

    lost     right in A, wrong in B          Of lost + gained samples each is lost with probability
    gained   wrong in A, right in B          1/2 where the two are equally good (McNemar, 1947).

The binomial tail is exact: no sample is too small for it, it only finds nothing there.
"""

from __future__ import annotations

import msgspec

from harness.errors import NothingComparable
from harness.stats.distributions import binomial_cdf


class Paired(msgspec.Struct, frozen=True):
    """``p_worse`` and ``p_better`` are one-sided; both are 1 where no sample differs."""

    samples: int
    lost: int
    gained: int
    p_worse: float
    p_better: float


def mcnemar(a: str, b: str) -> Paired:
    """Compare two strings of one character a sample, ``1`` where the answer was correct.

    Raises `NothingComparable` unless both are of the same, positive length.
    """
    if not a or len(a) != len(b):
        raise NothingComparable(
            f"{len(a)} and {len(b)} samples cannot be paired", "measure both on one dataset"
        )
    lost = sum(one == "1" != other for one, other in zip(a, b, strict=True))
    gained = sum(other == "1" != one for one, other in zip(a, b, strict=True))
    return Paired(
        samples=len(a),
        lost=lost,
        gained=gained,
        p_worse=_upper_tail(lost, lost + gained),
        p_better=_upper_tail(gained, lost + gained),
    )


def _upper_tail(count: int, total: int) -> float:
    """P(X >= count) of Binomial(total, 1/2); its mirror image is a lower tail, which is exact."""
    return binomial_cdf(total - count, total, 0.5)
