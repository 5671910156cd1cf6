"""SIGINT, SIGTERM, SIGHUP and pairs of them, over all phases of a run."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from trial import RUN, Place, Summary, Trial, place, tries

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
SENT = ((INT,), (TERM,), (HUP,), (INT, INT), (TERM, TERM), (INT, TERM), (HUP, INT), (TERM, HUP))


def run(count: int, seed: int, seconds: float) -> Iterator[Summary]:
    """``count`` tries in all; at most so many seconds."""
    until_s = time.monotonic() + seconds
    with place() as root:
        ground, summary = Place(Path(root)), Summary("signals")
        length_s = ground.length_s()
        for index, chance in enumerate(tries(count, seed, "signals", until_s)):
            trial, sent = ground.new(), SENT[index % len(SENT)]
            what, faults = _try(trial, sent, chance, length_s)
            summary.counts["tries"] += 1
            summary.counts[what] += 1
            names = "+".join(one.name for one in sent)
            summary.faults += [
                f"seed {seed}, try {index}, {names}: {fault}"
                for fault in [*faults, *trial.faults()]
            ]
        summary.left_in_tmp = ground.left()
    yield summary


def _try(
    trial: Trial, sent: tuple[signal.Signals, ...], chance: random.Random, length_s: float
) -> tuple[str, list[str]]:
    process = trial.start(*RUN)
    trial.wait_for_moment(process, chance, length_s)
    for number in sent:
        process.send_signal(number)
        time.sleep(chance.uniform(0, 0.5) if len(sent) > 1 else 0)
    _, err = process.communicate(timeout=300)
    code, runs, faults = process.returncode, trial.runs(), []
    if code == 0:
        return "over before", faults
    if "Traceback" in err and runs:
        faults.append(f"a traceback: {err.strip().splitlines()[-1]}")
    # A signal's own end: before the driver was up, or when the result lay there already.
    if code not in (130, *(-number for number in sent)):
        faults.append(f"exit code {code}: {err.strip()[-200:]}")
    faults += [
        f"no result: {sorted(path.name for path in one.iterdir())}"
        for one in runs
        if not (one / "result.json").exists()
    ]
    if trial.empty():
        faults.append("an empty folder")
    return ("with a result" if runs else "before anything was measured"), faults
