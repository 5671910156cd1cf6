"""How an entry was measured and quantized, as far as that tells it from the others of its model.

    resnet18 int8  static, minmax          resnet18 int8  dynamic

What belongs to the quantization (`spec.fields`: what is compared together with the precision) tells
entries of one precision apart; everything else those of one model. Whatever is left alike gets its
run's name, so that no two rows read the same.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from harness.compression.model import Entry
from harness.spec import BY_NAME, DEFINING, TURNS, RunSpec

# goes by the name or has a column of its own
_TOLD = ("model", "precision")
OF_RUNS = "launches"  # a fact of every run of ours, and of nobody else's entry
# how, and then on what
QUANTIZING = ("quantization", "calibration_method", "calibration", "reference")
# what two measurements must share to be set against each other in precision
ALIKE = tuple(field.name for field in DEFINING if field.name not in (*_TOLD, *QUANTIZING))
_STANDARD = RunSpec()
_FORMS = {
    "backend": "{}", "device": "{}", "batch_size": "batch {}", "scenario": "{}", "boundary": "{}",
    "concurrency": "{} at once", "threads": "threads {}", "quantization": "{}",
    "calibration_method": "{}", "calibration": "calibrated on {}", "dataset": "dataset {}",
    "input_shapes": "inputs {}", "options": "{}", "reference": "made from {}",
    "arrivals": "{} arrivals", "rate": "{} /s", "latency_bound": "{}", "design": "in turns",
    "machine": "machine {}", "method": "{}", "technique": "{}", "scheme": "{}",
    "pruning_ratio": "pruned {}", "bits": "{} bits", "source": "from {}",
}  # fmt: skip
# known by other facts, or worth telling only where nothing else differs
_OTHERS = ("machine", "library", "category", "evaluated_on", "source")
_OF_PRECISION = (*QUANTIZING, "method", "technique", "scheme", "pruning_ratio", "bits")
_FACTS = (*ALIKE, "design", *_OF_PRECISION, *_OTHERS)


def facts_of(spec: RunSpec) -> dict[str, str]:
    """What `told` needs to know of a run: whatever is not as it is by default."""
    values = {name: getattr(spec, name) for name in (*ALIKE, *QUANTIZING)}
    found = {name: text_of(value) for name, value in values.items()
             if value != getattr(_STANDARD, name)}  # fmt: skip
    for name in found:
        if BY_NAME[name].identity == "file":
            found[name] = posixpath.basename(found[name].replace("\\", "/")) or found[name]
    if spec.conversion == "int8":  # there are two ways, and the usual one is worth a word
        found |= {name: str(values[name]) for name in ("quantization", "calibration_method")}
    if spec.conversion == "int8" and spec.quantization == "dynamic":  # which calibrates nothing
        found.pop("calibration_method", None)
    return found | ({"design": TURNS} if spec.in_turns else {})


def text_of(value: Any) -> str:
    """``x=1x3x8x8``, ``graph=off``, ``200``; a list by its parts."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text_of(inner)}" for key, inner in value.items())
    if isinstance(value, tuple):
        of_texts = bool(value) and isinstance(value[0], str)
        return (" and " if of_texts else "x").join(map(str, value)) or "scalar"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"  # as in a cell's name
    return str(value)


def told(entries: Iterable[Entry]) -> list[Entry]:
    """The entries, each with its ``setting``."""
    listed = list(entries)
    models: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in listed:
        models[entry.model].append(entry)
    named = {id(e): text for alike in models.values() for e, text in _settings(alike)}
    return [
        entry if entry.setting == named[id(entry)]
        else msgspec.structs.replace(entry, setting=named[id(entry)])
        for entry in listed
    ]  # fmt: skip


def _settings(alike: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """Of entries of one model."""
    by_precision: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in alike:
        by_precision[entry.precision].append(entry)
    differ = {key for key in _FACTS if key not in _OF_PRECISION and _differs(alike, key)}
    of_precision = {
        precision: {key for key in _OF_PRECISION if _differs(found, key)}
        for precision, found in by_precision.items()
    }
    texts = [
        _text(entry, [k for k in _FACTS if k in differ or k in of_precision[entry.precision]])
        for entry in alike
    ]
    times = Counter((e.precision, text) for e, text in zip(alike, texts, strict=True))
    return [
        (entry, text if times[entry.precision, text] == 1 else _joined(text, entry.run))
        for entry, text in zip(alike, texts, strict=True)
    ]


def _differs(entries: Sequence[Entry], key: str) -> bool:
    """Runs of ours give whatever is not as by default; others may be silent, and differ not."""
    found = {entry.info.get(key) for entry in entries if OF_RUNS in entry.info or key in entry.info}
    if key in _OTHERS:
        found.discard(None)
    return len(found) > 1


def _text(entry: Entry, keys: Sequence[str]) -> str:
    known = [(key, entry.info[key]) for key in keys if entry.info.get(key)]
    absent = [key for key in keys if key in ("calibration", "dataset") and not entry.info.get(key)]
    parts = [_FORMS.get(key, f"{key.replace('_', ' ')} {{}}").format(value) for key, value in known]
    if "calibration" in absent and entry.info.get("quantization") == "static":
        parts.append("own calibration data")
    return ", ".join(dict.fromkeys(parts))


def _joined(text: str, run: str) -> str:
    return ", ".join(filter(None, (text, run)))
