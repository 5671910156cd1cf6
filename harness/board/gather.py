"""From the newest values of event files to a `Board`. Pure; `harness.board.source` reads them.

Event files are untrusted: a value may be NaN, a text no JSON, a name anything. What cannot be used
is left out with its reason.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from harness.board.add_scalars import added_up
from harness.compression.fields import SHARES
from harness.compression.model import METRICS, NEVER_ZERO, Board, Entry, Figure, Histogram
from harness.compression.pooled import UNFINISHED, pooled
from harness.compression.ratios import RATIOS
from harness.records.result import Result
from harness.tensorboard.tags import HIGH, LATENCIES, LOW, Tag, of_the_board

# A run that wrote nothing for so long is over, whatever it said last.
STALE_S = 600.0
# What `harness run` writes while it goes, until the figures of the whole run are there.
LIVE = {"latency_ms": "latency/median_ms", "throughput_per_s": "throughput/per_s"}
_STATUSES = (*UNFINISHED, "complete", "degraded", "imported")
_LONGEST_TEXT = 1_000_000
_MOST_NOTES = 5
_UNCLEAN = re.compile(r"[^-/\w\.]")  # what tensorboardX replaces in the tag of a scalar
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n```", re.DOTALL)
_OWN_KEYS = {"schema", "model", "precision", "status", "random_weights", "reference", "units",
             "missing", "info", "derived"}  # fmt: skip


class Run(msgspec.Struct):
    """The newest value of every tag of one TensorBoard run.

    ``histograms`` has rows of (left edge, right edge, count); ``seen_s`` is the wall time of the
    newest event, seconds since 1970.
    """

    scalars: dict[str, float] = {}
    texts: dict[str, str] = {}
    histograms: dict[str, Sequence[Sequence[float]]] = {}
    seen_s: float = 0.0


def board(
    runs: Mapping[str, Run],
    now_s: float,
    results: Mapping[str, Result] | None = None,
    folders: Mapping[str, Path] | None = None,
) -> Board:
    """Everything the runs tell, with ratios, scores and judgements. By model, precision and run.

    ``results``: of each run that has a result beside its events, which then counts instead of them;
    its launches are pooled with those of its cell. ``folders``: where results lie, by their ids.
    """
    done = results or {}
    found = {name: list(_entries(name, runs[name], now_s)) for name in sorted(runs)}
    latencies = {
        done[name].id: entry.latencies
        for name, entries in found.items()
        for entry in entries
        if name in done and entry.latencies is not None
    }
    logged = [entry for name, entries in found.items() if name not in done for entry in entries]
    logged += added_up({name: run.scalars for name, run in runs.items()})
    pool = pooled([*done.values()], logged, latencies=latencies, folders=folders)
    entries = tuple(_as_shares(entry) for entry in pool.entries)
    return Board(entries=entries, notes=(*_notes(runs), *pool.problems))


def _as_shares(entry: Entry) -> Entry:
    """Percentages as shares of 1, so that all accuracies stand on one axis.

    After the ratios, which need to see where one of a pair was a share and one a percentage.
    """
    percentages = {
        name: Figure(figure.value / 100, _percent(figure.low), _percent(figure.high))
        for name, figure in entry.figures.items()
        if name in SHARES and figure.value > 1
    }
    drop = entry.ratios.get("accuracy_drop", 0.0)
    ratios = entry.ratios
    if drop and ("accuracy" in percentages or abs(drop) > 1):
        ratios = {**ratios, "accuracy_drop": drop / 100}
    return msgspec.structs.replace(entry, figures=entry.figures | percentages, ratios=ratios)


def _percent(bound: float | None) -> float | None:
    return None if bound is None else bound / 100


class _Model(msgspec.Struct):
    """One model in one run: its tags by their full names, and what its metadata says."""

    name: str
    run_name: str
    run: Run
    tags: dict[str, Tag]
    facts: dict[str, Any]

    def precisions(self) -> list[str]:
        one, several = self.facts.get("precision"), self.facts.get("precisions")
        stated = {one} if isinstance(one, str) and one else set()
        if isinstance(several, dict):
            stated |= several.keys()
        found = {t.last for t in self.tags.values() if t.step not in ("metadata", "compression")}
        return sorted(found | stated)

    def scalars(self, last: str) -> dict[str, float]:
        """step -> value of the tags that end in ``last``."""
        values = self.run.scalars
        return {t.step: values[f] for f, t in self.tags.items() if t.last == last and f in values}


def _entries(name: str, run: Run, now_s: float) -> Iterable[Entry]:
    by_model: defaultdict[str, dict[str, Tag]] = defaultdict(dict)
    for full, tag in of_the_board([*run.scalars, *run.texts, *run.histograms]).items():
        by_model[tag.model][full] = tag
    for model, tags in _reunited(by_model).items():
        facts = _facts(run, tags)
        true_name = facts.get("model")  # a tag may hold it shortened
        called = true_name if isinstance(true_name, str) and true_name.strip() else model
        found = _Model(called, name, run, tags, facts)
        for precision in found.precisions():
            yield _entry(found, precision, now_s)


def _reunited(by_model: Mapping[str, dict[str, Tag]]) -> dict[str, dict[str, Tag]]:
    """Of writers that clean the tags of scalars alone (tensorboardX): one model, not two.

    ``net_v2_`` joins ``net v2+``, by the latter's name, if nothing else would be cleaned to that.
    """
    dirty: defaultdict[str, list[str]] = defaultdict(list)
    for model in by_model:
        if (cleaned := _UNCLEAN.sub("_", model)) != model:
            dirty[cleaned].append(model)
    joined = {model: dict(tags) for model, tags in by_model.items()}
    for cleaned, models in dirty.items():
        if cleaned in joined and len(models) == 1:
            joined[models[0]] |= joined.pop(cleaned)
    return joined


def _entry(model: _Model, precision: str, now_s: float) -> Entry:
    said = _said_of(model.facts, precision)
    status, missing = _status(said, model.run, now_s), _texts(said.get("missing"))
    values = model.scalars(precision)
    if status == "running":
        live = {METRICS[m].tag: model.run.scalars.get(tag) for m, tag in LIVE.items()}
        values = {step: value for step, value in live.items() if value is not None} | values
    figures, broken = _figures(values, said)
    return Entry(
        model=model.name,
        precision=precision,
        run=model.run_name,
        status=status,
        random_weights=said.get("random_weights") is True,
        figures=figures,
        missing={key: why for key, why in missing.items() if key not in figures} | broken,
        derived=_texts(said.get("derived")),
        latencies=_latencies(model, precision),
        reference=_reference(said, precision),
        ratios=_logged_ratios(model, precision),
        info=_info(said),
    )


def _reference(said: Mapping[str, Any], precision: str) -> str | None:
    """Whoever logged it may have compared it with another precision than fp32."""
    stated = said.get("reference")
    return stated if isinstance(stated, str) and stated not in ("", precision) else None


def _logged_ratios(model: _Model, precision: str) -> dict[str, float]:
    """Those in the event file, which count where none can be computed from figures.

    They name no precision, so there must be but one that they can be of.
    """
    if precision == "fp32" or set(model.precisions()) - {"fp32", precision}:
        return {}
    logged = {
        tag.last: model.run.scalars[full]
        for full, tag in model.tags.items()
        if tag.step == "compression" and full in model.run.scalars
    }
    return {name: logged[name] for name in RATIOS if math.isfinite(logged.get(name, math.nan))}


def _facts(run: Run, tags: Mapping[str, Tag]) -> dict[str, Any]:
    """What the model's metadata text holds; nothing where it is no JSON object."""
    for full, tag in tags.items():
        if tag[1:] == ("metadata", "info") and full in run.texts:
            return parse_metadata(run.texts[full])
    return {}


def _notes(runs: Mapping[str, Run]) -> tuple[str, ...]:
    """Which runs have metadata that cannot be read: their entries lack what only it says."""
    broken = [
        name
        for name, run in sorted(runs.items())
        for full, tag in of_the_board(run.texts).items()
        if tag[1:] == ("metadata", "info") and not parse_metadata(run.texts[full])
    ]
    why = "the metadata is no JSON object, so status, units and reasons are unknown"
    more = [f"and {len(broken) - _MOST_NOTES} more such runs"] if len(broken) > _MOST_NOTES else []
    return (*(f"{_short(name)}: {why}" for name in broken[:_MOST_NOTES]), *more)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:80]}..."


def parse_metadata(text: str) -> dict[str, Any]:
    """The JSON object in ``text``, fenced or bare; ``{}`` where there is none."""
    if len(text) > _LONGEST_TEXT:
        return {}
    fenced = _FENCED.search(text)
    try:
        found = msgspec.json.decode(fenced.group(1) if fenced else text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _said_of(facts: Mapping[str, Any], precision: str) -> Mapping[str, Any]:
    """What the metadata says of ``precision``: under its name, else what it says of the model."""
    own = facts.get("precisions")
    special = own.get(precision) if isinstance(own, dict) else None
    if isinstance(special, dict):
        return {**{k: v for k, v in facts.items() if k != "precisions"}, **special}
    if facts.get("precision") in (None, precision):
        return facts
    return {key: facts[key] for key in ("units", "info") if key in facts}


def _status(said: Mapping[str, Any], run: Run, now_s: float) -> str:
    stated = said.get("status")
    status = stated if stated in _STATUSES else "complete"
    return "interrupted" if status == "running" and now_s - run.seen_s > STALE_S else status


def _figures(
    values: Mapping[str, float], said: Mapping[str, Any]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """metric -> figure, and metric -> why there is none."""
    figures: dict[str, Figure] = {}
    broken: dict[str, str] = {}
    for step, value in values.items():
        metric = _metric(step, said)
        if metric is None:
            continue
        if value == 0 and metric in NEVER_ZERO:
            broken[metric] = "the event file holds 0, which is no measurement"
        elif math.isfinite(value):
            low, high = (values.get(step + end, math.nan) for end in (LOW, HIGH))
            known = math.isfinite(low) and math.isfinite(high)
            figures[metric] = Figure(value, low, high) if known else Figure(value)
        else:
            broken[metric] = f"the event file holds {value}, which is no measurement"
    if "energy" in values and not figures.keys() & {"energy_j", "power_mw"} and not broken:
        broken["energy_j"] = "an energy was logged without its unit: neither J nor mW is said"
    return figures, broken


def _metric(step: str, said: Mapping[str, Any]) -> str | None:
    """The metric of a tag's step. ``energy`` is joules or milliwatts, as the metadata says."""
    units = said.get("units")
    unit = units.get(step) if isinstance(units, dict) else None
    if step == "energy":
        return {"J": "energy_j", "mW": "power_mw"}.get(unit) if isinstance(unit, str) else None
    return next((name for name, metric in METRICS.items() if metric.tag == step), None)


def _latencies(model: _Model, precision: str) -> Histogram | None:
    """The distribution, where its rows are sound: finite, in order, something counted."""
    for full, tag in model.tags.items():
        if tag[1:] == (LATENCIES, precision) and full in model.run.histograms:
            return histogram(model.run.histograms[full])
    return None


def histogram(rows: Sequence[Sequence[float]]) -> Histogram | None:
    """Of rows of (left edge, right edge, count).

    Empty rows at either end go: the fast loader leaves some whose edges run backwards, where the
    least value lies beyond the first bucket's limit.
    """
    filled = [index for index, (_, _, count) in enumerate(rows) if count > 0]
    if not filled:
        return None
    kept = rows[filled[0] : filled[-1] + 1]
    values = [*(row[0] for row in kept), kept[-1][1]]
    counts = tuple(float(count) for _, _, count in kept)
    if not all(map(math.isfinite, (*values, *counts))) or min(counts) < 0:
        return None
    edges = tuple(float(f"{value:.7g}") for value in values)
    return Histogram(edges, counts) if all(a <= b for a, b in pairwise(edges)) else None


def _texts(found: object) -> dict[str, str]:
    """The scalars of a JSON object as text; anything else is left out."""
    if not isinstance(found, dict):
        return {}
    return {str(key): _text(value) for key, value in found.items() if _text(value)}


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value) if isinstance(value, str | int | float | bool) else ""


def _info(said: Mapping[str, Any]) -> dict[str, str]:
    loose = {key: value for key, value in said.items() if key not in _OWN_KEYS}
    return _texts(loose) | _texts(said.get("info"))
