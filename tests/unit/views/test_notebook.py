"""What a notebook shows of a result and of a comparison."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
from made_runs import made

import harness
from harness.compare.comparison import compare_runs
from harness.records import notebook
from harness.testing.results import fake_failure, fake_result
from harness.views import notebook as shown


def test_a_result_shows_its_quantiles_and_figures() -> None:
    result = fake_result()
    html = result._repr_html_()
    assert html is not None
    root = ET.fromstring(html)  # well-formed, so nothing in it is cut
    assert len(root.findall(".//circle")) == 4  # p99.9 has no figure
    words = " ".join("".join(root.itertext()).split())
    assert "123.6 µs" in words and "degraded" in words and "stolen" in words


def test_a_failed_run_shows_its_cause() -> None:
    html = fake_failure()._repr_html_() or ""
    assert "SIGKILL" in html and "<svg" not in html


def test_a_comparison_shows_ratios_and_verdicts() -> None:
    found = compare_runs(made(2.0), made(1.0, precision="int8"))
    root = ET.fromstring(found._repr_html_() or "")
    words = " ".join("".join(root.itertext()).split())
    assert "improved" in words and "0.5000" in words and "latency median" in words
    marks = {circle.get("fill") for circle in root.findall(".//circle")}
    assert "currentColor" in marks and len(marks) == 2  # only what is certain has a colour


def test_names_are_text() -> None:
    evil = "<script>alert(1)</script>"
    result = fake_result(status=evil)
    assert evil not in (result._repr_html_() or "")


def test_who_cannot_draw_leaves_it_to_the_text(monkeypatch) -> None:
    monkeypatch.setattr(notebook, "RENDERERS", {})
    assert fake_result()._repr_html_() is None


def test_the_front_door_brings_the_pictures_along() -> None:
    assert harness.compare is not None
    assert notebook.RENDERERS[type(fake_result())] is shown.result_html
    assert msgspec.json.decode(msgspec.json.encode(fake_result()))["id"]
