"""A wall meter in a process of its own: ``meter.py CSV BEACON IDLE_W LOAD_W LIFETIME_S``.

Twenty times a second it appends what the machine draws since the row before: ``LOAD_W`` while
inferences begin (the beacon is fresh), ``IDLE_W`` otherwise; ``-`` for BEACON is constant load.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from fakes import STAMP, open_beacon

PERIOD_S = 0.05
FRESH_NS = 20_000_000


def main(csv: str, beacon: str, idle_w: str, load_w: str, lifetime_s: str) -> None:
    stamp = None if beacon == "-" else open_beacon(Path(beacon))
    began = time.perf_counter()
    before = time.time()
    joules = 0.0
    with Path(csv).open("w", buffering=1) as file:
        file.write("time_s,power_w,energy_j\n" if stamp else "time_s,power_w\n")
        while time.perf_counter() - began < float(lifetime_s):
            time.sleep(PERIOD_S)
            loaded = (
                stamp is None or time.perf_counter_ns() - STAMP.unpack_from(stamp, 0)[0] < FRESH_NS
            )
            watts = float(load_w if loaded else idle_w)
            now = time.time()
            joules += watts * (now - before)
            before = now
            file.write(f"{now:.6f},{watts}" + (f",{joules:.6f}\n" if stamp else "\n"))


if __name__ == "__main__":
    main(*sys.argv[1:])
