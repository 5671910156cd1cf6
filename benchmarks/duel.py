"""What a duel resolves here: itself, and 1, 2 and 5 % planted, beside separate launches.

    python benchmarks/duel.py --seconds 600          as far as that goes
    python benchmarks/duel.py --seconds 600          ... and on from there
    python benchmarks/duel.py --report               what was reached so far

A plug-in backend runs ONNX Runtime and then waits for the planted share of what the inference took;
both sides run it, one with a share of 0. Each trial is one duel, and one comparison of runs of five
separate launches a side that take as long; quiet, and with a neighbour that burns a core. Trials go
round, so that any number of seconds has some of each. Needs pip install 'hw-harness[torch]' for
resnet18; --models digits does without.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.protocols import Artifact, SessionOptions, Wanted

PLANTED = (0.0, 1.0, 2.0, 5.0)
HARNESS = (sys.executable, "-P", "-m", "harness")
OPTION = "slower_percent"


class Waiting(OnnxRuntimeBackend):
    """Each inference takes ``slower_percent`` longer than it would."""

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        return super().wants(precision, _without_ours(options))

    def prepare(self, artifact: Artifact, inputs: Any, options: SessionOptions) -> Any:
        session = super().prepare(artifact, inputs, _without_ours(options))
        return Slower(session, float(options.options.get(OPTION, "0")) / 100)


class Slower:
    """A session whose inferences are followed by a wait of a ``share`` of what they took."""

    def __init__(self, session: Any, share: float) -> None:
        self._session, self._share = session, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def enqueue(self) -> None:
        clock = time.perf_counter_ns
        began = clock()
        self._session.enqueue()
        self._session.synchronize()
        end = clock()
        until = end + self._share * (end - began)
        while clock() < until:
            pass

    def synchronize(self) -> None:
        """It was waited for."""


def _without_ours(options: SessionOptions) -> SessionOptions:
    kept = {name: value for name, value in options.options.items() if name != OPTION}
    return msgspec.structs.replace(options, options=kept)


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Somebody who burns a core meanwhile."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def called(*words: str) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [*HARNESS, *words, "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise SystemExit(f"harness {' '.join(words)}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trial(model: str, share: float, noisy: bool) -> list[dict[str, Any]]:
    """One duel, and one comparison of separate launches in the same time."""
    same = ["--model", model, "--backend", "duel:Waiting", "--threads", "1"]
    told = []
    with tempfile.TemporaryDirectory() as out, neighbour(noisy):
        same += ["--results", out]
        began_s = time.monotonic()
        across = f"option={OPTION}=0,{OPTION}={share:g}" if share else ""
        how = ["--across", across] if share else ["--against-itself"]
        found = called("duel", *same, *how, "--no-tensorboard")
        took_s = time.monotonic() - began_s
        (verdict,) = found["paired"]["verdicts"]
        told.append(_line("duel", took_s, verdict))
        began_s, each_s = time.monotonic(), max(0.2, (took_s - 10) / 10)
        runs = [
            called("run", *same, "--launches", "5", "--duration", f"{each_s:.2f}",
                   "--option", f"{OPTION}={one:g}", "--no-tensorboard")["id"]
            for one in (0.0, share)
        ]  # fmt: skip
        took_s = time.monotonic() - began_s
        rows = called("compare", *(str(Path(out) / run) for run in runs))["cells"][0]["rows"]
        row = next(row for row in rows if row["metric"] == "latency_median")
        told.append(_line("separate", took_s, row))
    return [{"model": model, "planted": share, "noisy": noisy, **one} for one in told]


def _line(way: str, took_s: float, row: dict[str, Any]) -> dict[str, Any]:
    ratio, interval, verdict = row["ratio"], row["interval"], row["verdict"]
    known = isinstance(ratio, float) and isinstance(interval, list)
    half = (interval[1] - interval[0]) / 2 / ratio if known else None
    found = {"way": way, "took_s": took_s, "verdict": verdict}
    return {**found, "ratio": ratio if known else None, "half_width": half}


def report(lines: list[dict[str, Any]]) -> None:
    """A row a kind of trial: how many, how long, how well known, and what was said."""
    print(f"{'model':9} {'machine':9} {'planted':>7}  {'':8} {'trials':>6} {'seconds':>7} "
          f"{'ratio':>7} {'± median':>8}  verdicts")  # fmt: skip

    def kind(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["model"], one["noisy"], one["planted"], one["way"]

    for (model, noisy, share, way), group in itertools.groupby(sorted(lines, key=kind), kind):
        of = list(group)
        known = [one for one in of if one["half_width"] is not None]
        ratio = statistics.median(one["ratio"] for one in known) if known else float("nan")
        half = statistics.median(one["half_width"] for one in known) if known else float("nan")
        words = [one["verdict"] for one in of]
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        print(f"{model:9} {'neighbour' if noisy else 'quiet':9} {share:6.0f}%  {way:8} "
              f"{len(of):6} {statistics.median(one['took_s'] for one in of):7.1f} {ratio:7.4f} "
              f"{half:8.2%}  {counts}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after about that long")
    parser.add_argument("--models", default="digits,resnet18")
    parser.add_argument("--file", type=Path, default=Path("duel-trials.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    lines = [json.loads(one) for one in asked.file.read_text().splitlines()] \
        if asked.file.exists() else []  # fmt: skip
    models = asked.models.split(",")
    kinds = [(one, share, noisy) for one in models for share in PLANTED for noisy in (False, True)]
    ends_s, longest_s = time.monotonic() + asked.seconds, 0.0
    done = len(lines) // 2
    while not asked.report and time.monotonic() + longest_s < ends_s:
        began_s = time.monotonic()
        found = trial(*kinds[done % len(kinds)])
        with asked.file.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in found)
        lines += found
        done += 1
        longest_s = max(longest_s, time.monotonic() - began_s)
        print(f"{done} trials, {ends_s - time.monotonic():.0f} s left", file=sys.stderr)
    report(lines)


if __name__ == "__main__":
    main()
