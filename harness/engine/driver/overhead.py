"""``--overhead-check``: what does being watched cost this very workload, in this very process?

    window ──┬ on ┬ off ┬ off ┬ on ┬ on ┬ off ┬ ...      the same load goes on throughout
             └─ round ──┴─ round ──┴─ round ──┴

*On* is all that a run does: the sampler at its rate, the journal, TensorBoard, the live line. *Off*
stops the sampler process and leaves the driver asleep but for emptying the timeline. Orders
alternate, so that a slow drift favours neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.driver.watch import Block

if TYPE_CHECKING:
    from harness.engine.driver.launch import Launch

ROUNDS = 12
BLOCK_S = 1.0
MIN_ITERATIONS = 400  # in a block, for a p99
MAX_BLOCK_S = 5.0
_SETTLE_S = 0.05


def measure_overhead(launch: Launch) -> list[Block]:
    """Run all rounds on a worker whose window is over and whose load goes on."""
    seconds = min(max(BLOCK_S, MIN_ITERATIONS * launch.iteration_s()), MAX_BLOCK_S)
    orders = ((True, False) if number % 2 == 0 else (False, True) for number in range(ROUNDS))
    blocks = [_block(launch, seconds, watched) for order in orders for watched in order]
    _watch(launch, True)
    return blocks


def _block(launch: Launch, seconds: float, watched: bool) -> Block:
    _watch(launch, watched)
    launch.pump_for(_SETTLE_S)
    start_ns = launch.now_ns()
    launch.pump_for(seconds)
    return Block(start_ns, launch.now_ns(), watched)


def _watch(launch: Launch, watched: bool) -> None:
    launch.aside = not watched
    if launch.sampler is not None:
        launch.sampler.pause(not watched)
