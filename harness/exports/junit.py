"""Results as JUnit XML: what was measured, for whatever shows test results. No verdicts.

    measured                 passed; the figures are properties
    absent, with a reason    skipped
    a run that failed        error

One test case per cell and metric, pooled over the cell's runs; ``classname`` is the machine. The
gate writes JUnit of its own (`harness check --report-dir`), which can fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from harness.compare.match import Side, doubts, hardware_name
from harness.compare.sides import Measured, measured, metrics_of, sides_of
from harness.exports.formats import Exported, absent_note
from harness.exports.pytest_benchmark.document import full_name
from harness.maybe import Unavailable, explain
from harness.records.result import Result
from harness.views.text import plain

_COUNTED = {"error": "errors", "skipped": "skipped"}


def export(results: Sequence[Result], paths: Sequence[Path]) -> Exported:
    """The XML document, in UTF-8. No name or message can break it: control characters are gone."""
    cases = [case for side in sides_of(results) for case in _cases(side)]
    kinds = Counter(child.tag for case in cases for child in case)
    totals = {"tests": str(len(cases)), "failures": "0"}
    totals |= {attribute: str(kinds[tag]) for tag, attribute in _COUNTED.items()}
    root = ET.Element("testsuites", {"name": "harness export", **totals})
    suite = ET.SubElement(root, "testsuite", {"name": "harness export", **totals, "time": "0"})
    suite.extend(cases)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    figures = sum(case.find("error") is None for case in cases)
    return Exported(
        document + b"\n", absent_note(kinds["skipped"], figures, "each is skipped with its reason")
    )


def _cases(side: Side) -> list[ET.Element]:
    made = [_failed(run) for run in side.failed]
    if side.finished:
        made += [_case(side, measured(side.finished, name)) for name in metrics_of(side.first)]
    return made


def _case(side: Side, one: Measured) -> ET.Element:
    first = side.first
    case = _element(first, one.metric.name)
    values: dict[str, object] = {"unit": one.metric.unit, "better": one.metric.better}
    if isinstance(one.value, Unavailable):
        ET.SubElement(case, "skipped", {"message": plain(explain(one.value))})
    else:
        values["value"] = one.value
    if not isinstance(one.interval, Unavailable):
        values |= {"low": one.interval[0], "high": one.interval[1]}
    if not isinstance(one.figures, Unavailable):
        values["figures"] = len(one.figures)
    values |= {"runs": " ".join(run.id for run in side.finished), "doubts": doubts(side)}
    _properties(case, values)
    return case


def _failed(run: Result) -> ET.Element:
    case = _element(run, "run")
    message = plain(run.error.message if run.error else run.status)
    ET.SubElement(case, "error", {"message": message, "type": run.status}).text = message
    _properties(case, {"runs": run.id})
    return case


def _element(run: Result, metric: str) -> ET.Element:
    machine = plain(f"{hardware_name(run)} ({run.machine.fingerprint})")
    name = f"{full_name(run.spec)} {metric}"
    return ET.Element("testcase", {"classname": machine, "name": name, "time": "0"})


def _properties(case: ET.Element, values: dict[str, object]) -> None:
    """In front of all else in ``case``, as the schema has it."""
    block = ET.Element("properties")
    for name, value in values.items():
        text = repr(value) if isinstance(value, float) else plain(value)
        ET.SubElement(block, "property", {"name": name, "value": text})
    case.insert(0, block)
