"""What compressing a model gained and cost: ratios against a reference, and the AURORA score.

Here R is the reference (FP32 unless told otherwise) and C the compressed model.

    size_ratio               R / C                above 1: C is smaller
    size_reduction_pct       100 (1 - C / R)      percent; above 0: C is smaller
    speedup                  R / C of latency     above 1: C is faster
    memory_reduction_mb      R - C                MB; above 0: C needs less
    accuracy_drop            R - C                in the accuracy's own unit; above 0: C is worse
    accuracy_retention_pct   100 C / R            percent; 100: nothing was lost
    energy_ratio             R / C of joules      above 1: C needs less per inference
    energy_reduction         R - C                joules per inference; above 0: C needs less
    energy_saving_share      1 - C / R            of the joules, at most 1

A size, latency or energy of zero is a quantity that nobody measured, so no ratio comes of it.
Joules per inference are those measured, or else derived by `with_energy`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from harness.compare.verdicts import ONE_FIGURE
from harness.compression.model import METRICS, PAIRED_BY, Aurora, Entry, Figure, Judgement
from harness.compression.settings import ALIKE, OF_RUNS
from harness.errors import UsageError
from harness.records.metric import FIGURES

RATIOS = (
    "size_ratio", "size_reduction_pct", "speedup", "memory_reduction_mb", "accuracy_drop",
    "accuracy_retention_pct", "energy_ratio", "energy_reduction", "energy_saving_share",
)  # fmt: skip

_PAIRED = (*PAIRED_BY, *(name for name in ALIKE if name not in PAIRED_BY), "design")

# What was kept counts as much as any two gains; the three gains count alike.
AURORA_WEIGHTS: dict[str, float] = {
    "accuracy_retention": 0.4,
    "speedup": 0.2,
    "size_ratio": 0.2,
    "energy_ratio": 0.2,
}
# The share of the reference's accuracy that may be lost before the score falls off.
AURORA_TOLERANCE = 0.01


def ratios(reference: Entry, entry: Entry) -> dict[str, float]:
    """The ratios, named as above, of ``entry`` against ``reference``; those that exist."""
    found: dict[str, float] = {}
    if (size := _gain(reference, entry, "model_size_mb")) is not None:
        found |= {"size_ratio": size, "size_reduction_pct": 100 * (1 - 1 / size)}
    if (speedup := _gain(reference, entry, "latency_ms")) is not None:
        found["speedup"] = speedup
    if (memory := _values(reference, entry, "memory_mb")) is not None:
        found["memory_reduction_mb"] = memory[0] - memory[1]
    accuracy = _values(reference, entry, "accuracy")
    if accuracy is not None and not mixed_scales(accuracy):
        found["accuracy_drop"] = accuracy[0] - accuracy[1]
        if accuracy[0] > 0:
            found["accuracy_retention_pct"] = 100 * accuracy[1] / accuracy[0]
    if (energy := _gain(reference, entry, "energy_j")) is not None:
        found |= {"energy_ratio": energy, "energy_saving_share": 1 - 1 / energy}
    if energy is not None and (joules := _values(reference, entry, "energy_j")) is not None:
        found["energy_reduction"] = joules[0] - joules[1]
    return {name: found[name] for name in RATIOS if name in found and math.isfinite(found[name])}


def aurora(
    ratios: Mapping[str, float],
    weights: Mapping[str, float] = AURORA_WEIGHTS,
    tolerance: float = AURORA_TOLERANCE,
) -> Aurora | None:
    """The AURORA score of a compressed model: 100 is as good as the reference, more is better.

        score = 100 * penalty * product of component ** weight

    over accuracy retention, speedup, size ratio and energy ratio, each above 1 where better. The
    weights of missing components are shared out among those present, in proportion.

    penalty = 1 / (1 + (excess / tolerance)²), where excess is the share of the reference's accuracy
    lost beyond ``tolerance``: 1 up to the tolerance, a half at twice the tolerance, a tenth at four
    times, smooth throughout. Without it, speed could buy off any loss.

    None without an accuracy retention (a score blind to accuracy would praise a model for being
    broken), and without at least one gain to weigh against it. Raises `UsageError` for a weight of
    no component, and for weights and tolerances that are not above 0.
    """
    _check(weights, tolerance)
    known = _components(ratios)
    components = {name: known[name] for name in weights if name in known}
    if "accuracy_retention" not in components or len(components) < 2:
        return None
    total = sum(weights[name] for name in components)
    shares = {name: weights[name] / total for name in components}
    mean = math.prod(value ** shares[name] for name, value in components.items())
    excess = max(0.0, 1 - components["accuracy_retention"] - tolerance)
    penalty = 1 / (1 + (excess / tolerance) ** 2)
    return Aurora(
        score=100 * penalty * mean,
        components=components,
        missing=tuple(name for name in weights if name not in components),
        weights=shares,
        penalty=penalty,
    )


def _check(weights: Mapping[str, float], tolerance: float) -> None:
    for name, value in {**weights, "tolerance": tolerance}.items():
        if name not in AURORA_WEIGHTS and name != "tolerance":
            raise UsageError(
                f"{name!r} is no component of AURORA", f"weigh {', '.join(AURORA_WEIGHTS)}"
            )
        if not 0 < value < math.inf:
            raise UsageError(f"the {name} of AURORA is {value}", "give a number above 0")


def mixed_scales(accuracies: Iterable[float]) -> bool:
    """Whether some may be shares of 1 and others percentages; then nobody can subtract them."""
    known = [accuracy for accuracy in accuracies if accuracy > 0]
    return bool(known) and min(known) <= 1 < max(known)


def _why_no_aurora(reference: Entry, entry: Entry, ratios: Mapping[str, float]) -> str:
    accuracies = _values(reference, entry, "accuracy")
    if accuracies is not None and mixed_scales(accuracies):
        before, after = accuracies
        return f"accuracies of {before:g} and {after:g}; is one a share and one a percentage?"
    if "accuracy_retention_pct" not in ratios:
        return "no accuracy of both this precision and its reference; a score needs it"
    return "neither speedup nor size nor energy ratio is known; a score needs one of them"


def with_ratios(entries: Sequence[Entry], reference: str = "fp32") -> tuple[Entry, ...]:
    """The entries, each with its ratios and score against the same model at ``reference``.

    An entry that names its own ``reference`` is compared with that instead. Partners agree in
    everything of `PAIRED_BY` that both give. Of several, the one from the same run is taken, then
    one of the same kind (a run of ours, or not), or else the last. An entry that is the reference
    itself, or has no partner, has no ratios; ``missing["aurora"]`` says why there is no score.
    """
    entries = [with_energy(entry) for entry in entries]
    partners: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        partners[_key(entry, entry.precision)].append(entry)
    compared = []
    for entry in entries:
        key = _key(entry, entry.reference or reference)
        itself = key == _key(entry, entry.precision)
        compared.append(entry if itself else _compared(entry, partners[key], key[1]))
    return tuple(compared)


def _key(entry: Entry, precision: str) -> tuple[str, str]:
    """FP32 is fp32."""
    return entry.model, precision.lower()


def with_energy(entry: Entry) -> Entry:
    """The entry with joules per inference, where its source gave average power alone.

    power x mean latency / batch size, where one inference runs at a time; a median is no mean.
    """
    figures, info = entry.figures, entry.info
    absent = "energy_j" in figures or not {"power_mw", "latency_ms"} <= figures.keys()
    if absent or info.get("latency_statistic") == "median" or info.get("concurrency", "1") != "1":
        return entry
    batch = info.get("batch_size", "1")
    if not batch.isdecimal() or int(batch) == 0 or figures["power_mw"].value <= 0:
        return entry
    joules = figures["power_mw"].value / 1e3 * figures["latency_ms"].value / 1e3 / int(batch)
    how = "average power x latency" + ("" if batch == "1" else f" / batch size {batch}")
    return msgspec.structs.replace(
        entry,
        figures={**figures, "energy_j": Figure(joules)},
        derived={**entry.derived, "energy_j": how},
        missing={name: why for name, why in entry.missing.items() if name != "energy_j"},
    )


def _compared(entry: Entry, references: Sequence[Entry], wanted: str) -> Entry:
    alike = [other for other in references if _comparable(entry, other)]
    if not alike:
        return _without_partner(entry, references, wanted)
    ours = OF_RUNS in entry.info  # whose conditions are known: such are set against each other
    alike.sort(key=lambda other: (other.run == entry.run, (OF_RUNS in other.info) == ours))
    partner = alike[-1]
    found = ratios(partner, entry)
    score = aurora(found)
    missing = {name: why for name, why in entry.missing.items() if name != "aurora"}
    return msgspec.structs.replace(
        entry,
        reference=partner.precision,
        reference_run=partner.run,
        ratios=found,
        aurora=score,
        judged=unjudged(partner, entry),
        missing=missing if score else {**missing, "aurora": _why_no_aurora(partner, entry, found)},
    )


def unjudged(reference: Entry, entry: Entry) -> dict[str, Judgement]:
    """By metric of both, where there is but one figure of each: the size of a file is exact."""
    return {
        name: _unjudged(name, reference.figures[name].value, figure.value)
        for name, figure in entry.figures.items()
        if name in reference.figures
    }


def _unjudged(metric: str, before: float, after: float) -> Judgement:
    known = [one for one in FIGURES.values() if one.column == metric]
    ratio = after / before if before > 0 and after > 0 else None
    if not known or known[0].rule != "exact" or ratio is None:
        return Judgement("inconclusive", ONE_FIGURE, ratio)
    lower, minimum = METRICS[metric].better == "lower", math.log1p(known[0].minimum_effect)
    shift = math.log(ratio)
    verdict = "regressed" if (shift > 0) == lower else "improved"
    return Judgement(
        "unchanged" if abs(shift) <= minimum else verdict, "exact", ratio, ratio, ratio,
        design="exact",
    )  # fmt: skip


def _without_partner(entry: Entry, others: Sequence[Entry], wanted: str) -> Entry:
    """Of `_compared`: nothing is left but to say why."""
    if not others:
        why = f"no {wanted} of this model to compare with"
    else:
        other = others[-1]
        differs = next(key for key in _PAIRED if not _agree(entry, other, key))
        mine, theirs = (e.info.get(differs, "as by default") for e in (entry, other))
        why = f"its {differs} is {mine}, that of {other.precision} is {theirs}"
        if differs == "model_sha256":
            made = f"made from another content ({mine[:8]}) than this model's {other.precision}"
            why = f"{made} ({theirs[:8]})"
    return msgspec.structs.replace(entry, missing={**entry.missing, "aurora": why})


def _comparable(a: Entry, b: Entry) -> bool:
    return all(_agree(a, b, key) for key in _PAIRED)


def _agree(a: Entry, b: Entry, key: str) -> bool:
    """Runs of ours give whatever is not as by default; who is silent elsewhere is not known."""
    if key not in PAIRED_BY and OF_RUNS in a.info and OF_RUNS in b.info:
        return a.info.get(key) == b.info.get(key)
    return key not in a.info or key not in b.info or a.info[key] == b.info[key]


def _components(ratios: Mapping[str, float]) -> dict[str, float]:
    """AURORA's components by name, from those of `RATIOS` that are there."""
    found = {name: ratios[name] for name in AURORA_WEIGHTS if name in ratios}
    if "accuracy_retention_pct" in ratios:
        found["accuracy_retention"] = ratios["accuracy_retention_pct"] / 100
    return found


def _values(reference: Entry, entry: Entry, metric: str) -> tuple[float, float] | None:
    if metric not in reference.figures or metric not in entry.figures:
        return None
    return reference.figures[metric].value, entry.figures[metric].value


def _gain(reference: Entry, entry: Entry, metric: str) -> float | None:
    """How many times smaller the metric is than the reference's; None unless both are above 0."""
    pair = _values(reference, entry, metric)
    if pair is None or min(pair) <= 0:
        return None
    gain = pair[0] / pair[1]
    return gain if 0 < gain < math.inf else None
