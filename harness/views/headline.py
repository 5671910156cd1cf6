"""A run in three lines: what was measured, its figures, and how far to trust them."""

from __future__ import annotations

from harness.errors import one_line
from harness.maybe import Maybe, Unavailable
from harness.records.result import LatencyStats, Result, Timing
from harness.views.text import Line, all_rows, count, number, once, plain, quantity, scale_ms, title

_MOST_CHARACTERS = 600  # of a runtime's message; the record has it whole
# section -> the rows of it that are shown by default; None: each of them
_SHOWN: dict[str, frozenset[str] | None] = {
    "Latency": frozenset({"", "median", "p99", "gpu median"}),
    "Requests": frozenset({"", "served", "waiting", "busy", "queue"}),
    "Throughput": None,
    "Energy": frozenset({"", "per inf."}),
    "Memory": frozenset({"", "peak", "gpu_used"}),
    "Accuracy": frozenset({"", "top-1"}),
    "Overhead": None,
}
_OF_PRECISION = ("", "file", "worst output", "cosine", "agreement")


def headline(result: Result) -> list[str]:
    """The model and its conditions; the figures; the status and why. Without the figures where
    nothing was timed."""
    timing = result.timing
    figures = [] if isinstance(timing, Unavailable) else [_figures(result, timing)]
    return [f"{title(result)}, {_conditions(result)}", *figures, _status(result)]


def brief_rows(result: Result) -> list[Line]:
    """What most readers look for of `harness.views.text.rows`, without the lists of names."""
    found = []
    for row in all_rows(result):
        if row.section in ("Error", "Precision", "Validity"):
            found += _told(row)
        elif (names := _SHOWN.get(row.section)) is None or row.name in names:
            found.append(row)
    return once([*found, *_unknown(result)])


def _told(row: Line) -> list[Line]:
    if row.section == "Error":  # the headline says it, unless it is too long for that
        return [row] if row.value == "stderr" or len(row.note) > _MOST_CHARACTERS else []
    if row.section == "Validity":
        return [row] if row.value in ("warn", "fail") else []
    if row.value == "n/a" or row.name in _OF_PRECISION:
        return [row]
    if row.name == "16-bit sums":
        return [] if row.value == "safe" else [row]
    listed = row.name.startswith("ran ") and row.name != "ran convert"
    return [row._replace(note="")] if listed or row.name == "left in fp32" else []


def _unknown(result: Result) -> list[Line]:
    """The checks that could not be made, in one row."""
    names = [plain(check.name) for check in result.validity if check.verdict == "unknown"]
    if not names or result.error is not None:
        return []
    return [Line("Validity", count(len(names), "check"), "unknown", ", ".join(names))]


def shortened(text: str) -> str:
    """``text`` on one line; of a very long one its two ends."""
    return one_line(plain(text), _MOST_CHARACTERS)


def _conditions(result: Result) -> str:
    """What is not as by default, the batch and the launches."""
    spec = result.spec
    parts = [f"batch {spec.batch_size}"]
    if spec.scenario != "latency":
        parts.append(spec.scenario if spec.rate is None else f"{spec.scenario} at {spec.rate:g} /s")
    if spec.boundary != "compute":
        parts.append(f"{spec.boundary} boundary")
    if spec.concurrency > 1:
        parts.append(f"concurrency {spec.concurrency}")
    if spec.threads is not None:
        parts.append(count(spec.threads, "thread"))
    return ", ".join([*parts, count(spec.launches, "launch", "launches")])


def _figures(result: Result, timing: Timing) -> str:
    return ", ".join(
        [*_latency(timing.latency_ms), _throughput(result), f"energy {_energy(result)}"]
    )


def _latency(stats: LatencyStats) -> tuple[str, str]:
    factor, unit = scale_ms(stats.median)
    interval = stats.ci95.get("median", Unavailable(""))
    if isinstance(interval, Unavailable):
        known = "no interval"
    else:
        known = f"{number(interval[0] / factor)} to {number(interval[1] / factor)}"
    median = f"median {number(stats.median / factor)} {unit} ({known})"
    return median, f"p99 {_or_na(stats.p99, 'ms')}"


def _throughput(result: Result) -> str:
    found = result.throughput
    return "n/a" if isinstance(found, Unavailable) else f"{number(found.inferences_per_s)} /s"


def _energy(result: Result) -> str:
    found = result.energy
    joules = found if isinstance(found, Unavailable) else found.joules_per_inference
    return _or_na(joules if isinstance(joules, Unavailable) else joules.value, "J")


def _or_na(value: Maybe[float], unit: str) -> str:
    return "n/a" if isinstance(value, Unavailable) else quantity(value, unit)


def _status(result: Result) -> str:
    error = result.error
    if error is not None and error.kind == "interrupted":
        return plain(error.message)
    if error is not None:
        told = not error.phase or error.phase in error.message
        when = result.status if told else f"{result.status} while {plain(error.phase)}"
        return f"{when}: {shortened('; '.join(filter(None, (error.message, error.remedy))))}"
    kind = "fail" if result.status == "failed" else "warn"
    doubts = [check for check in result.validity if check.verdict == kind]
    if not doubts:
        return f"{result.status}: {_passed(result)}" if result.validity else result.status
    if len(doubts) > 1:
        return f"{result.status}: {', '.join(plain(check.name) for check in doubts)}"
    return f"{result.status}: {shortened(plain(doubts[0].reason).partition('; ')[0])}"


def _passed(result: Result) -> str:
    verdicts = [check.verdict for check in result.validity]
    passed, unknown = verdicts.count("pass"), verdicts.count("unknown")
    text = f"{count(passed, 'check')} passed"
    return f"{text}, {unknown} could not be made" if unknown else text
