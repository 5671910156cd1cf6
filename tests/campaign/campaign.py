"""The reliability campaign: real processes, killed and signalled at random moments. Bounded.

    python tests/campaign/campaign.py kills --count 100 --seed 1
    python tests/campaign/campaign.py signals --count 100 --seed 1

Prints a line of figures for each kind of try, and every fault with what repeats it. Exit code 1
where there was one. docs/reliability.md says what was reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kills
import signals
from trial import Summary

# A part takes (count, seed, seconds at most) and tells what came out, one summary a kind of try.
PARTS: dict[str, Callable[[int, int, float], Iterator[Summary]]] = {
    "kills": kills.run,
    "signals": signals.run,
}


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, default=100, help="tries of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600, help="no new try after so long")
    given = parser.parse_args(args)
    faults = 0
    for summary in PARTS[given.part](given.count, given.seed, given.seconds):
        print(summary, flush=True)
        faults += len(summary.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
