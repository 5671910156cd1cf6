"""A gate's report as JUnit XML, for whatever shows test results.

    worse than allowed                      failure
    not measured                            error
    not compared, not decided               skipped, or a failure where ``strict`` counts it
    waived, in quarantine                   skipped, with the reason
    everything else                         passed

One test case per cell, metric and check; ``classname`` is the machine. Numbers are properties.
"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

import msgspec

from harness.compare.gate.judge import Case, GateReport
from harness.maybe import Unavailable
from harness.views.text import plain

_SKIPPED = ("not confirmed", "not comparable", "missing", "nothing compared", "inconclusive",
            "waived", "quarantined")  # fmt: skip
_TAGS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def render_junit(report: GateReport) -> bytes:
    """The XML document, in UTF-8. No name or message can break it: control characters are gone."""
    tags = Counter(_tag(case) for case in report.cases)
    totals = {"tests": str(len(report.cases))}
    totals |= {attribute: str(tags[tag]) for tag, attribute in _TAGS.items()}
    root = ET.Element("testsuites", {"name": "harness check", **totals})
    suite = ET.SubElement(root, "testsuite", {"name": "harness check", **totals, "time": "0"})
    found = report.comparison
    _properties(suite, {
        "baseline": found.a, "candidate": found.b, "outcome": report.outcome,
        "exit_code": report.exit_code, "policy": report.policy, "strict": report.strict,
        "alpha": found.alpha, "comparisons": found.comparisons,
        **{f"undecided_{name}": n for name, n in msgspec.structs.asdict(report.undecided).items()},
    })  # fmt: skip
    for case in report.cases:
        _add(suite, case)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _tag(case: Case) -> str:
    if case.code:
        return "error" if case.code == 3 else "failure"
    return "skipped" if case.kind in _SKIPPED else ""


def _add(suite: ET.Element, case: Case) -> None:
    machine = f"{case.hardware} ({case.fingerprint})" if case.fingerprint else "harness"
    name = " ".join(filter(None, (case.cell, case.metric, case.check)))
    element = ET.SubElement(
        suite, "testcase", {"classname": plain(machine), "name": plain(name), "time": "0"}
    )
    _properties(element, {"verdict": case.kind, **_numbers(case)})
    message = plain(case.message)
    if tag := _tag(case):
        attributes = {"message": message}
        if tag != "skipped":
            attributes["type"] = case.kind
        ET.SubElement(element, tag, attributes).text = message
    else:
        ET.SubElement(element, "system-out").text = message


def _numbers(case: Case) -> dict[str, object]:
    row = case.row
    if row is None:
        return {}
    found: dict[str, object] = {
        "unit": row.unit,
        "baseline": row.a,
        "candidate": row.b,
        "ratio": row.ratio,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "detectable": row.detectable,
        "minimum_effect": row.minimum_effect,
        "launches_baseline": row.launches[0],
        "launches_candidate": row.launches[1],
    }
    if not isinstance(row.interval, Unavailable):
        found |= {"ratio_low": row.interval[0], "ratio_high": row.interval[1]}
    return found


def _properties(element: ET.Element, values: dict[str, object]) -> None:
    """Absent figures have no property."""
    block = ET.SubElement(element, "properties")
    for name, value in values.items():
        if not isinstance(value, Unavailable):
            text = repr(value) if isinstance(value, float) else plain(value)
            ET.SubElement(block, "property", {"name": name, "value": text})
