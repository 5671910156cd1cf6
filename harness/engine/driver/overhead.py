"""``--overhead-check``: what does being watched cost this very workload, in this very process?

    window ──┬ on ┬ off ┬ off ┬ on ┬ on ┬ off ┬ ...      the same load goes on throughout
             └─ round ──┴─ round ──┴─ round ──┴

*On* is all that a run does: the sampler at its rate, the journal, TensorBoard, the live line. *Off*
stops the sampler process and leaves the driver asleep but for emptying the timeline. Orders
alternate, so that a slow drift favours neither.
"""

from __future__ import annotations

from harness.engine.driver.watch import Watch
from harness.engine.outcome.evidence import Block

ROUNDS = 12
BLOCK_S = 1.0
MIN_ITERATIONS = 400  # in a block, for a p99
MAX_BLOCK_S = 5.0
_SETTLE_S = 0.05


def measure_overhead(watch: Watch, iteration_s: float) -> list[Block]:
    """Run all rounds on a worker whose window is over and whose load goes on."""
    seconds = min(max(BLOCK_S, MIN_ITERATIONS * iteration_s), MAX_BLOCK_S)
    orders = ((True, False) if number % 2 == 0 else (False, True) for number in range(ROUNDS))
    blocks = [_block(watch, seconds, watched) for order in orders for watched in order]
    _look(watch, True)
    return blocks


def _block(watch: Watch, seconds: float, watched: bool) -> Block:
    _look(watch, watched)
    watch.pump_for(_SETTLE_S)
    start_ns = watch.now_ns()
    watch.pump_for(seconds)
    return Block(start_ns, watch.now_ns(), watched)


def _look(watch: Watch, watched: bool) -> None:
    watch.aside = not watched
    if watch.sampler is not None:
        watch.sampler.pause(not watched)
