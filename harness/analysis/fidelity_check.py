"""The check *fidelity*: does a reduced-precision model still compute what FP32 does?

Every output is judged by itself. A floor tells a coarser answer from another one; whether the
coarser answer is good enough for a task is for the accuracy to say.
"""

from __future__ import annotations

from harness.analysis.fidelity import is_exact, sqnr_of
from harness.maybe import Maybe, Unavailable, explain, present
from harness.records.result import Check, Fidelity, OutputFidelity

# dB; of a floating output. 10 dB is noise of a third of the signal's amplitude, a cosine of 0.95
SQNR_FLOOR_DB = {"int8": 10.0, "fp16": 20.0, "bf16": 20.0}
EQUAL_FLOOR = 0.9  # of an exact output's elements that are not 0 on both sides
PICTURE_ERROR = 8  # of 255: 8-bit integers this near are a picture that was rounded otherwise
TOP1_FLOOR = 0.8  # of labelled samples that keep their class
TOP1_SAMPLES = 30  # fewer prove nothing
_NAME = "fidelity"


def fidelity_check(found: Maybe[Fidelity], precision: str, labelled: bool) -> Check:
    """``labelled``: the samples are a dataset, so a changed class is no whim of drawn inputs."""
    floor = SQNR_FLOOR_DB.get(precision, SQNR_FLOOR_DB["int8"])
    threshold = (
        f"every output: SQNR at least {floor:g} dB, integers {EQUAL_FLOOR:.0%} equal; "
        f"{TOP1_FLOOR:.0%} of labelled samples keep their class"
    )
    if isinstance(found, Unavailable):
        reason = explain(found)
        return Check(name=_NAME, verdict="unknown", reason=reason, threshold=threshold)
    if found.output not in found.outputs:
        reason = "the outputs were not told apart"
        return Check(name=_NAME, verdict="unknown", reason=reason, threshold=threshold)
    judged = {n: one for n, one in found.outputs.items() if not isinstance(one, Unavailable)}
    low = [text for name, one in judged.items() if (text := _below(name, one, floor))]
    agreement = present(found.top1_agreement)
    judge = labelled and found.samples >= TOP1_SAMPLES
    if judge and agreement is not None and agreement < TOP1_FLOOR:
        low.append(f"{agreement:.1%} of the samples keep their class")
    if low:
        text = f"{precision} computes something else than fp32: {'; '.join(low)}"
        remedy = "its speed and size are those of another model; calibrate on real inputs"
        reason = f"{text}; {remedy}" if precision == "int8" else f"{text}; use a wider precision"
        return Check(name=_NAME, verdict="warn", reason=reason, threshold=threshold)
    unjudged = [n for n, one in found.outputs.items() if isinstance(one, Unavailable)]
    rest = f"; not judged: {', '.join(unjudged)}" if unjudged else ""
    of = f"the worst output, {found.output}: " if len(found.outputs) > 1 else ""
    reason = f"{of}{_said(judged[found.output])}{rest}"
    return Check(name=_NAME, verdict="pass", reason=reason, threshold=threshold)


def _below(name: str, one: OutputFidelity, floor: float) -> str:
    """What is wrong with an output; empty where nothing is."""
    if is_exact(one):
        error = present(one.max_abs_error)
        rounded = one.dtype in ("uint8", "int8") and error is not None and error <= PICTURE_ERROR
        share = present(one.equal_non_zero) or 0.0
        return "" if share >= EQUAL_FLOOR or rounded else f"{name} {_said(one)}"
    return "" if sqnr_of(one) >= floor else f"{name} {_said(one)}"


def _said(one: OutputFidelity) -> str:
    if is_exact(one):
        return f"{one.equal:.1%} equal"
    if one.non_finite:
        return f"has NaN or infinity in {one.non_finite} places where fp32 has it not, or otherwise"
    sqnr_db = present(one.sqnr_db)
    if sqnr_db is not None:
        return f"SQNR {sqnr_db:.1f} dB"
    zero = sqnr_of(one) < 0
    return "is not 0 where fp32 is 0 throughout" if zero else "identical to fp32"
