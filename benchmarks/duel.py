"""What a duel resolves here: itself, and 1, 2 and 5 % planted, beside separate launches.

    python benchmarks/duel.py --minutes 90       as far as that goes: the most telling trials first
    python benchmarks/duel.py --minutes 90       ... and on from there
    python benchmarks/duel.py --report           what was reached so far, against what is aimed at

Quiet and with a neighbour that burns a core, on `digits` and `resnet18`. A plug-in backend runs
ONNX Runtime and then waits for the planted share of what the inference took; both sides run it, one
with a share of 0. Each trial is one duel, and for some of them one comparison of five separate
launches a side that take as long. Besides, the ratio of `resnet18` FP32 and INT8 by duels whose
turns are 20 ms to 1 s is held against long separate runs that follow one another as A B B A:
pairing must not change what is measured.

Trials are a list that a seed has shuffled, done in order; `duel-trials.jsonl` holds one line a
measurement, and what is there is not done again. Needs pip install 'hw-harness[torch]' for
resnet18; --models digits does without.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.protocols import Artifact, SessionOptions, Wanted

HARNESS = (sys.executable, "-P", "-m", "harness")
OPTION, TURN = "slower_percent", "HARNESS_BENCHMARK_TURN_MS"
SEED = 11
TURNS_MS = (20, 50, 100, 300, 1000)
SEPARATE_S = "15"  # of each of ten long launches a side
LIMIT_S = 600.0  # of one command; a trial that takes longer is a failure, and told


class Waiting(OnnxRuntimeBackend):
    """Each inference takes ``slower_percent`` longer than it would."""

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        return super().wants(precision, _without_ours(options))

    def prepare(self, artifact: Artifact, inputs: Any, options: SessionOptions) -> Any:
        session = super().prepare(artifact, inputs, _without_ours(options))
        return Slower(session, float(options.options.get(OPTION, "0")) / 100)


class Slower:
    """A session whose inferences are followed by a wait of a ``share`` of what they took.

    Of the last two the shorter one counts: one that was preempted would be followed by a wait for a
    share of its absence, too, all of it processor time, and far more of that than was planted.
    """

    def __init__(self, session: Any, share: float) -> None:
        self._session, self._share = session, share
        self._last = 1 << 62

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def enqueue(self) -> None:
        clock = time.perf_counter_ns
        began = clock()
        self._session.enqueue()
        self._session.synchronize()
        end = clock()
        took = end - began
        wait = self._share * min(took, self._last)
        self._last = took
        until = clock() + wait  # from here on: both sides have done the above
        while clock() < until:
            pass

    def synchronize(self) -> None:
        """It was waited for."""


def _without_ours(options: SessionOptions) -> SessionOptions:
    kept = {name: value for name, value in options.options.items() if name != OPTION}
    return msgspec.structs.replace(options, options=kept)


# -- the trials ------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """``planted``: per cent, or a precision for the ratio of FP32 to it. ``separate``: with its
    comparison of separate launches."""

    model: str
    planted: float
    noisy: bool
    number: int
    separate: bool

    @property
    def key(self) -> str:
        where = "noisy" if self.noisy else "quiet"
        return f"{self.model} {self.planted:g} {where} {self.number}"


class Agreement(NamedTuple):
    """One duel of FP32 and INT8 with turns of ``turn_ms``; 0: the long separate runs."""

    turn_ms: int
    number: int

    @property
    def key(self) -> str:
        return f"agreement {self.turn_ms} {self.number}"


# model, planted %, neighbour -> duels, of which so many with separate launches beside them
COUNTS = {
    ("digits", 0.0, False): (40, 10),
    ("digits", 1.0, False): (20, 0),
    ("digits", 2.0, False): (20, 5),
    ("digits", 5.0, False): (5, 2),
    ("digits", 0.0, True): (20, 4),
    ("digits", 2.0, True): (10, 2),
    ("digits", 5.0, True): (5, 0),
    ("resnet18", 0.0, False): (8, 2),
    ("resnet18", 1.0, False): (4, 0),
    ("resnet18", 2.0, False): (6, 1),
    ("resnet18", 5.0, False): (2, 0),
    ("resnet18", 0.0, True): (4, 0),
    ("resnet18", 2.0, True): (4, 0),
}


def plan(models: list[str], agreement: bool) -> list[Trial | Agreement]:
    """All of it in an order of which each beginning has some of everything."""
    draw = random.Random(SEED)
    placed: list[tuple[float, Trial | Agreement]] = []
    for (model, planted, noisy), (count, separate) in COUNTS.items():
        early = 0.5 if planted == 0.0 and not noisy else 1.0
        for number in range(count if model in models else 0):
            trial = Trial(model, planted, noisy, number, number < separate)
            placed.append((early * (number + draw.random()) / count, trial))
    if agreement and "resnet18" in models:
        steps = [0, *TURNS_MS]
        placed += [
            ((2 * i + 1) / (2 * len(steps)), Agreement(one, 0)) for i, one in enumerate(steps)
        ]
    return [one for _, one in sorted(placed, key=lambda pair: pair[0])]


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


class Failed(Exception):
    """A command did not give a result."""


def called(*words: str, turn_ms: int = 0) -> dict[str, Any]:
    """What ``harness WORDS --json`` prints. Raises `Failed`."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    program = HARNESS
    if (
        turn_ms
    ):  # as `harness`, but for the length of a turn, which is found from the data otherwise
        program = (sys.executable, "-P", "-c", f"import duel; duel.with_turns_of({turn_ms})")
    try:
        done = subprocess.run(
            [*program, *words, "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"harness {' '.join(words)}: no end in {LIMIT_S:g} s") from error
    if done.returncode:
        raise Failed(f"harness {' '.join(words)}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_turns_of(turn_ms: int) -> None:
    """The command line, with turns of this length."""
    from harness.cli.entry import console
    from harness.engine.driver import rounds

    vars(rounds)["block_ns"] = lambda latency_ns, left_out: turn_ms * 1_000_000
    console()


def measured(trial: Trial) -> list[dict[str, Any]]:
    """One duel, and where wanted one comparison of separate launches in the same time."""
    same = ["--model", trial.model, "--backend", "duel:Waiting", "--threads", "1"]
    told = []
    with tempfile.TemporaryDirectory() as out, neighbour(trial.noisy):
        same += ["--out", out]
        began_s = time.monotonic()
        across = f"option={OPTION}=0,{OPTION}={trial.planted:g}"
        how = ["--across", across] if trial.planted else ["--against-itself"]
        goal = ["--precision-goal", "0.5%" if not trial.noisy else "2%"]
        goal += ["--max-duration", "1.5" if trial.model == "digits" else "6"]  # of a launch
        found = called("duel", *same, *how, *goal, "--no-tensorboard")
        took_s = time.monotonic() - began_s
        (verdict,) = found["paired"]["verdicts"]
        told.append(
            {
                **_line("duel", took_s, verdict),
                "launches": [one["ratio"] for one in verdict["launches"]],
                "cpu_ratio": verdict["cpu_ratio"],
                "resting": max(one["resting_share"] for one in found["paired"]["variants"]),
            }
        )
        if trial.separate:
            with contextlib.suppress(Failed):  # the duel stands all the same
                told.append(_separate(same, out, trial.planted, took_s))
    planted = {"model": trial.model, "planted": trial.planted, "noisy": trial.noisy}
    return [{"key": trial.key, **planted, **one} for one in told]


def _separate(same: list[str], out: str, share: float, duel_s: float) -> dict[str, Any]:
    began_s, each_s = time.monotonic(), max(0.2, (duel_s - 10) / 10)
    runs = [
        called("run", *same, "--launches", "5", "--duration", f"{each_s:.2f}",
               "--option", f"{OPTION}={one:g}", "--no-tensorboard")["id"]
        for one in (0.0, share)
    ]  # fmt: skip
    took_s = time.monotonic() - began_s
    rows = called("compare", *(str(Path(out) / run) for run in runs))["cells"][0]["rows"]
    row = next(row for row in rows if row["metric"] == "latency_median")
    return _line("separate", took_s, row)


def _line(way: str, took_s: float, row: dict[str, Any]) -> dict[str, Any]:
    ratio, interval, verdict = row["ratio"], row["interval"], row["verdict"]
    known = isinstance(ratio, float) and isinstance(interval, list)
    return {
        "way": way,
        "took_s": took_s,
        "verdict": verdict,
        "ratio": ratio if known else None,
        "interval": interval if known else None,
        "half_width": (interval[1] - interval[0]) / 2 / ratio if known else None,
    }


def agreed(trial: Agreement) -> list[dict[str, Any]]:
    """The ratio of INT8 to FP32, one way."""
    same = ["--model", "resnet18", "--threads", "1", "--no-tensorboard"]
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        same += ["--out", out]
        if trial.turn_ms:
            found = called("duel", *same, "--across", "precision=fp32,int8", "--launches", "5",
                           "--duration", "8", turn_ms=trial.turn_ms)  # fmt: skip
            (row,) = found["paired"]["verdicts"]
            line = _line("duel", time.monotonic() - began_s, row)
        else:
            line = _long_separate(same)
            line["took_s"] = time.monotonic() - began_s
    return [{"key": trial.key, "turn_ms": trial.turn_ms, **line}]


def _long_separate(same: list[str]) -> dict[str, Any]:
    """Ten launches a side, one at a time, as A B B A: what drifts slowly falls on both."""
    medians: dict[str, list[float]] = {"fp32": [], "int8": []}
    for number in range(10):
        for precision in ("fp32", "int8")[:: 1 if number % 2 == 0 else -1]:
            run = called("run", *same, "--precision", precision, "--launches", "1",
                         "--duration", SEPARATE_S)  # fmt: skip
            medians[precision].append(run["timing"]["latency_ms"]["median"])
    logs = [math.log(b / a) for a, b in zip(medians["fp32"], medians["int8"], strict=True)]
    centre = statistics.fmean(logs)
    half = 2.262 * statistics.stdev(logs) / math.sqrt(len(logs))  # t of 9 degrees of freedom
    interval = [math.exp(centre - half), math.exp(centre + half)]
    row = {"ratio": math.exp(centre), "interval": interval, "verdict": ""}
    return _line("separate", 0.0, row)


# -- what was reached ------------------------------------------------------------------------------


def report(lines: list[dict[str, Any]]) -> None:
    """A row a kind of trial, then each aim beside what was reached."""
    trials = [one for one in lines if "planted" in one]
    print(f"{'model':9} {'machine':9} {'planted':>7}  {'':8} {'trials':>6} {'seconds':>7} "
          f"{'ratio':>7} {'processor':>9} {'± median':>8}  verdicts")  # fmt: skip
    for (model, noisy, share, way), group in itertools.groupby(sorted(trials, key=_kind), _kind):
        of = list(group)
        half, ratio = _median(of, "half_width"), _median(of, "ratio")
        cpu = _median(of, "cpu_ratio")
        words = [one["verdict"] for one in of]
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        print(f"{model:9} {'neighbour' if noisy else 'quiet':9} {share:6.0f}%  {way:8} "
              f"{len(of):6} {_median(of, 'took_s'):7.1f} {ratio:7.4f} {cpu:9.4f} "
              f"{half:8.2%}  {counts}")  # fmt: skip
    for text in _aims(trials):
        print(text)
    _report_agreement([one for one in lines if "turn_ms" in one])
    for one in lines:
        if "problem" in one:
            print(f"failed: {one['key']}: {one['problem']}")


def _kind(one: dict[str, Any]) -> tuple[Any, ...]:
    return one["model"], one["noisy"], one["planted"], one["way"]


def _median(of: list[dict[str, Any]], name: str) -> float:
    known = [one[name] for one in of if isinstance(one.get(name), float)]
    return statistics.median(known) if known else math.nan


def _aims(trials: list[dict[str, Any]]) -> Iterator[str]:
    duels = [one for one in trials if one["way"] == "duel"]

    def some(planted: float, model: str = "", noisy: bool | None = None) -> list[dict[str, Any]]:
        return [
            one for one in duels
            if one["planted"] == planted and model in ("", one["model"])
            and noisy in (None, one["noisy"])
        ]  # fmt: skip

    quiet, noisy = some(0.0, "digits", False), some(0.0, "digits", True)
    if not duels:
        return
    yield f"digits, quiet: ± {_median(quiet, 'half_width'):.2%} (median of {len(quiet)}) in " \
          f"{_median(quiet, 'took_s'):.1f} s; aimed at 0.5% in 20 s"  # fmt: skip
    yield f"digits, neighbour: ± {_median(noisy, 'half_width'):.2%} (median of {len(noisy)}); " \
          "aimed at 2%"  # fmt: skip
    alike = some(0.0)
    false = [one for one in alike if one["verdict"] in ("improved", "regressed")]
    missed = [one for one in duels if not _covers(one)]
    yield f"false alarms: {len(false)} of {len(alike)} duels of a model with itself; aimed at 1%"
    yield f"intervals without the planted ratio: {len(missed)} of {len(duels)}; 5% are expected " \
          "(the waiting loop itself adds some tenths of a per cent)"  # fmt: skip
    for planted, aim in ((1.0, "9 of 10"), (2.0, "95%"), (5.0, "all")):
        of = some(planted, noisy=False)
        hit = sum(one["verdict"] == "regressed" for one in of)
        yield f"+{planted:g}% found, quiet: {hit} of {len(of)} in {_median(of, 'took_s'):.1f} s; " \
              f"aimed at {aim}"  # fmt: skip
    if resting := [one["resting"] for one in duels if isinstance(one.get("resting"), float)]:
        yield f"at rest a worker took at most {max(resting):.3%} of a core; aimed at 0.5%"
    apart = [one for one in trials if one["way"] == "separate" and one["planted"] == 0.0]
    wrong = sum(one["verdict"] in ("improved", "regressed") for one in apart)
    yield f"separate launches: ± {_median(apart, 'half_width'):.2%} (median of {len(apart)}), " \
          f"{wrong} false alarms"  # fmt: skip


def _covers(one: dict[str, Any]) -> bool:
    if one["interval"] is None:
        return True
    return bool(one["interval"][0] <= 1 + one["planted"] / 100 <= one["interval"][1])


def _report_agreement(lines: list[dict[str, Any]]) -> None:
    long = next((one for one in lines if one["turn_ms"] == 0), None)
    for one in sorted(lines, key=lambda line: line["turn_ms"]):
        name = f"turns of {one['turn_ms']} ms" if one["turn_ms"] else "long separate runs"
        low, high = one["interval"] or (math.nan, math.nan)
        known = long is not None and long["interval"] and one["interval"] and one is not long
        told = ""
        if known:
            agrees = low <= long["interval"][1] and long["interval"][0] <= high  # type: ignore[index]
            told = "agrees" if agrees else "does not agree"
        print(f"resnet18 INT8/FP32, {name}: {one['ratio'] or math.nan:.4f} [{low:.4f}, {high:.4f}] "
              f"in {one['took_s']:.0f} s  {told}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after that long at most")
    parser.add_argument("--models", default="digits,resnet18")
    parser.add_argument("--file", type=Path, default=Path("duel-trials.jsonl"))
    parser.add_argument("--no-agreement", action="store_true", help="leave out the last part")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    text = asked.file.read_text() if asked.file.exists() else ""
    lines = [json.loads(one) for one in text.splitlines()]
    done = {one["key"] for one in lines}
    ends_s = time.monotonic() + 60 * asked.minutes
    took_s: dict[str, float] = {}  # the longest of its kind
    for trial in [] if asked.report else plan(asked.models.split(","), not asked.no_agreement):
        kind = f"{type(trial).__name__} {getattr(trial, 'model', '')}"
        first_s = 400.0 if isinstance(trial, Agreement) else 90.0
        if trial.key in done or time.monotonic() + took_s.get(kind, first_s) > ends_s:
            continue
        began_s = time.monotonic()
        try:
            found = agreed(trial) if isinstance(trial, Agreement) else measured(trial)
        except Failed as error:
            found = [{"key": trial.key, "problem": str(error)}]
        took_s[kind] = max(took_s.get(kind, 0.0), time.monotonic() - began_s)
        with asked.file.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in found)
        lines += found
        print(f"{trial.key}: {took_s[kind]:.0f} s, {(ends_s - time.monotonic()) / 60:.1f} min left",
              file=sys.stderr)  # fmt: skip
    report(lines)


if __name__ == "__main__":
    main()
