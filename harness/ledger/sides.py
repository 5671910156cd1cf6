"""The final duel, read: what each side answers and takes, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.compare.paired import Paired
from harness.ledger import choose
from harness.maybe import Maybe, Unavailable
from harness.records.ledger import Answers, Ledger, Side
from harness.records.result import Accuracy, Result

NO_ANSWERS = Unavailable("there are no answers")


def sides_of(
    names: Sequence[str], results: Sequence[Result], found: Paired, labelled: bool
) -> Iterator[Side]:
    verdicts = [None, *found.verdicts]
    exact = results[1]
    for name, result, verdict in zip(names, results, verdicts, strict=True):
        yield Side(
            name=name,
            run=result.id,
            top1=_top1(result, name, labelled),
            answers=_paired(exact, result, name, labelled),
            ratio=1.0 if verdict is None else verdict.ratio,
            interval=(1.0, 1.0) if verdict is None else verdict.interval,
        )


def _top1(result: Result, name: str, labelled: bool) -> Maybe[float]:
    if labelled:
        found = result.accuracy
        return found if isinstance(found, Unavailable) else found.top1
    return 1.0 if name == "fp32" else _agreement(result)


def _agreement(result: Result) -> Maybe[float]:
    if isinstance(result.precision, Unavailable):
        return result.precision
    fidelity = result.precision.fidelity
    return fidelity if isinstance(fidelity, Unavailable) else fidelity.top1_agreement


def _paired(exact: Result, result: Result, name: str, labelled: bool) -> Maybe[Answers]:
    """What ``result`` lost and gained against FP32 on the same samples."""
    if not labelled:
        return _disagreeing(result, name)
    if not isinstance(exact.accuracy, Accuracy) or not isinstance(result.accuracy, Accuracy):
        absent = exact.accuracy if isinstance(exact.accuracy, Unavailable) else result.accuracy
        assert isinstance(absent, Unavailable)
        return absent
    return choose.costs(exact.accuracy.correct, {name: result.accuracy.correct})[name]


def _disagreeing(result: Result, name: str) -> Maybe[Answers]:
    """Without labels FP32 is right by definition, and nothing is gained."""
    agreement = 1.0 if name == "fp32" else _agreement(result)
    if isinstance(agreement, Unavailable) or isinstance(result.precision, Unavailable):
        return agreement if isinstance(agreement, Unavailable) else NO_ANSWERS
    fidelity = result.precision.fidelity
    samples = 1 if isinstance(fidelity, Unavailable) else fidelity.samples
    lost = round((1.0 - agreement) * samples)
    return choose.costs("1" * samples, {name: "0" * lost + "1" * (samples - lost)})[name]


def recommendation(found: Ledger) -> str:
    """What to do, in a sentence."""
    if not found.keep:
        return (
            f"leave no layer in fp32: none of {found.measured} measured, of {len(found.layers)},"
            " costs answers or time for certain"
        )
    sides = {side.name: side for side in found.sides}
    mixed, int8, fp32 = sides["mixed"], sides["int8"], sides["fp32"]
    text = f"leave {', '.join(found.keep)} in fp32"
    parts = []
    if isinstance(mixed.ratio, float):
        parts.append(f"{1 / mixed.ratio:.0%} of int8's speed")
    if isinstance(fp32.ratio, float) and isinstance(mixed.ratio, float):
        parts.append(f"{fp32.ratio / mixed.ratio:.2f} times fp32's")
    if isinstance(mixed.answers, Answers) and isinstance(int8.answers, Answers):
        points = 100 * (int8.answers.drop - mixed.answers.drop)
        parts.append(f"{points:+.2f} points of answers against int8")
    return f"{text}: {', '.join(parts)}" if parts else text
