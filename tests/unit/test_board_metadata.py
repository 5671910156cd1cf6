"""The text event that says what the scalars of a board cannot."""

from __future__ import annotations

import msgspec
import pytest

from harness.board.metadata import decode, encode, written_figures
from harness.board.model import Entry, Figure
from harness.board.results import entry_of
from harness.sinks import board_tags
from harness.testing.results import fake_result

INT8 = Entry(
    model="net", precision="int8", run="f.json", status="imported",
    figures={"latency_ms": Figure(2.0), "power_mw": Figure(500.0), "energy_j": Figure(0.001)},
    derived={"energy_j": "power x latency"}, missing={"accuracy": "not in the file"},
    info={"library": "torchvision", "evaluated_on": "cpu"},
)  # fmt: skip


def test_entries_of_a_model_come_back() -> None:
    fp32 = msgspec.structs.replace(
        INT8, precision="fp32", info={"library": "torchvision", "evaluated_on": "cuda"}
    )
    found = decode(encode([fp32, INT8]))
    assert found is not None and found.model == "net"
    assert found.info == {"library": "torchvision"}
    assert [entry.precision for entry in found.entries] == ["fp32", "int8"]
    int8 = found.entries[1]
    assert int8.units == {"latency": "ms", "energy": "mW"}
    assert int8.missing == INT8.missing and int8.derived == INT8.derived
    assert int8.info == {"evaluated_on": "cpu"}


def test_what_a_run_writes_is_read_alike() -> None:
    entry = entry_of(fake_result())
    found = decode(board_tags.metadata(entry))
    assert found is not None and found.entries[0].status == "degraded"
    assert found.entries[0].info == entry.info and found.entries[0].missing == entry.missing


def test_one_tag_holds_power_or_energy() -> None:
    assert written_figures(INT8) == ["latency_ms", "power_mw"]
    measured = msgspec.structs.replace(INT8, derived={})
    assert written_figures(measured) == ["latency_ms", "energy_j"]


@pytest.mark.parametrize(
    "text",
    ["", "hello", "```json\n{\n```", "[" * 100_000, '{"schema": "harness.board/1"}',
     '{"schema": "harness.board/1", "model": 3, "entries": []}',
     '{"schema": "other/1", "model": "m", "entries": []}',
     '{"schema": "harness.board/1", "model": "m", "entries": [{"precision": ["x"]}]}'],
)  # fmt: skip
def test_any_other_text_is_none(text: str) -> None:
    assert decode(text) is None
