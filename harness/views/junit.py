"""JUnit XML, for whatever shows test results. What is a failure, its callers say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree as ET

from harness.maybe import Unavailable
from harness.views.text import plain

_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


class JunitCase(NamedTuple):
    """A test case: ``machine`` is its class, ``kind`` the type of its failure or error.

    ``text`` is the body of its outcome, or what a test that passed has printed.
    """

    machine: str
    name: str
    properties: Mapping[str, object]
    outcome: Literal["passed", "failure", "error", "skipped"] = "passed"
    kind: str = ""
    message: str = ""
    text: str = ""


def document(
    title: str, cases: Sequence[JunitCase], properties: Mapping[str, object] | None = None
) -> bytes:
    """The XML document, in UTF-8. No name or message can break it: control characters are gone."""
    outcomes: Counter[str] = Counter(case.outcome for case in cases)
    totals = {"name": title, "tests": str(len(cases))}
    totals |= {attribute: str(outcomes[outcome]) for outcome, attribute in _COUNTED.items()}
    root = ET.Element("testsuites", totals)
    suite = ET.SubElement(root, "testsuite", {**totals, "time": "0"})
    if properties:
        _add_properties(suite, properties)
    for case in cases:
        _add_case(suite, case)
    ET.indent(root)
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _add_case(suite: ET.Element, case: JunitCase) -> None:
    names = {"classname": plain(case.machine), "name": plain(case.name), "time": "0"}
    element = ET.SubElement(suite, "testcase", names)
    _add_properties(element, case.properties)
    if case.outcome != "passed":
        attributes = {"message": plain(case.message)}
        if case.outcome != "skipped":
            attributes["type"] = case.kind
        ET.SubElement(element, case.outcome, attributes).text = plain(case.text)
    elif case.text:
        ET.SubElement(element, "system-out").text = plain(case.text)


def _add_properties(element: ET.Element, values: Mapping[str, object]) -> None:
    """Absent figures have no property."""
    block = ET.SubElement(element, "properties")
    for name, value in values.items():
        if not isinstance(value, Unavailable):
            text = repr(value) if isinstance(value, float) else plain(value)
            ET.SubElement(block, "property", {"name": name, "value": text})
