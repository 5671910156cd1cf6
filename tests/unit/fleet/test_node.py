"""What a node says of itself, what it is held to, and what becomes of what it sends."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from harness.errors import UsageError
from harness.fleet import facts as facts_
from harness.fleet import node
from harness.fleet.conclude import conclude
from harness.fleet.facts import NODE_VARIABLE, NodeFacts, differs, labels, resources
from harness.fleet.node import Beat, Begun, Finished, Order
from harness.fleet.nodes import lacks, occupied
from harness.fleet.plan import Task
from harness.fleet.stay import offers_of, refuse_unlike
from harness.sweep import locks
from harness.sweep.needs import Needs, Offers

OFFERS = Offers(
    machine="box", machine_class="avx2", isa=("avx", "avx2"), gpus=("NVIDIA H100 PCIe",),
    meters=("nvml",),
)  # fmt: skip
FACTS = NodeFacts(
    offers=OFFERS, fingerprint="0123", harness="0.1.0", code="abcd",
    versions={"python": "3.11.7", "onnxruntime": "1.31.0"},
)  # fmt: skip
LABEL = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?)")  # as Ray takes them


def other(**changes: object) -> NodeFacts:
    offers = msgspec.structs.replace(OFFERS, machine="other")
    return msgspec.structs.replace(FACTS, **{"offers": offers, **changes})


def test_labels_say_what_a_node_has_and_are_read_back() -> None:
    found = labels(FACTS)
    assert found["harness.io/isa.avx2"] == "yes" and found["harness.io/has.onnxruntime"] == "1.31.0"
    for key, value in found.items():
        assert LABEL.fullmatch(key.partition("/")[2]) and LABEL.fullmatch(value)
    read = offers_of(found)
    assert read == msgspec.structs.replace(OFFERS, gpus=("NVIDIA-H100-PCIe",))
    assert resources(FACTS) == {"harness_machine": 1.0, "harness_gpu_0": 1.0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"harness": "0.2.0"}, "box has Harness 0.1.0, other has 0.2.0"),
        ({"code": "ef"}, "box has Harness's source abcd, other has ef"),
        ({"versions": {"python": "3.12.1"}}, "box has Python 3.11, other has 3.12"),
        ({"fingerprint": "9"}, "box (0123) and other (9) are unlike machines, and both of the class"
                               " avx2"),
        ({"versions": {"python": "3.11.9"}},
         "box has onnxruntime 1.31.0, other has no such package, and both are of one class"),
    ],
)  # fmt: skip
def test_unlike_nodes_are_refused_by_both_names(changes: dict[str, object], told: str) -> None:
    assert differs(FACTS, other(**changes)) == told


def test_unlike_machines_have_runtimes_of_their_own() -> None:
    offers = msgspec.structs.replace(OFFERS, machine="other", machine_class="jetson")
    versions = {"python": "3.11.9", "onnxruntime": "1.22.0"}
    assert differs(FACTS, other(offers=offers, versions=versions, fingerprint="9")) == ""


def test_a_join_is_refused_before_it_starts_anything() -> None:
    there = labels(FACTS)
    refuse_unlike([there], other())
    with pytest.raises(UsageError, match=r"box has Harness 0\.1\.0, other has 0\.2"):
        refuse_unlike([there], other(harness="0.2"))
    with pytest.raises(UsageError, match="a node called box has joined already"):
        refuse_unlike([there], FACTS)


def task(**fields: str) -> Task:
    needs = Needs(gpu="*") if fields.get("device", "cpu") != "cpu" else Needs()
    return Task("t", "digits", "0" * 16, "any", needs, dict(fields))


def test_the_processors_are_taken_whole_and_gpus_one_by_one() -> None:
    assert occupied(task()) == {"harness_machine": 1.0}
    assert occupied(task(device="cuda:1")) == {"harness_machine": 0.01, "harness_gpu_1": 1.0}
    assert lacks(task(device="cuda"), FACTS) == []
    assert lacks(task(device="cuda:1"), FACTS) == ["a device cuda:1"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NodeFacts:
    """A worker of the node ``box``, whose machine is this one."""
    monkeypatch.setenv(NODE_VARIABLE, str(facts_.write(FACTS, tmp_path)))
    return FACTS


def order(needs: Needs, **fields: object) -> Order:
    return Order("t", needs, dict(fields), (), (), 1, 60.0, ())


def test_a_node_that_lacks_what_it_claimed_fails_loudly(
    here: NodeFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_, "_gpus", lambda: ())
    begun, ended = node.measure(order(Needs(gpu="*")), lambda data: data)
    assert begun == Begun("box")
    assert isinstance(ended, Finished) and ended.code == 3
    assert ended.cause.startswith("box claimed a GPU when it joined, and lacks it now")


def test_bad_fields_end_as_what_was_wrong(here: NodeFacts) -> None:
    *_, ended = node.measure(order(Needs(), batch_size="0"), lambda data: data)
    assert isinstance(ended, Finished) and ended.code == 2
    assert "--batch-size" in ended.cause


def test_two_nodes_of_one_machine_wait_for_each_other(
    here: NodeFacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node, "BEAT_S", 0.02)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    going = node.measure(order(Needs(), cpus="0", model="absent.onnx"), lambda data: data)
    with locks.held({"cpu0000": True}, 0.0):
        assert next(going) == Begun("box")
        for _ in range(3):
            said = next(going)
            assert isinstance(said, Beat) and "harness-cpu0000.lock" in said.text
    *_, ended = going  # free now: it goes on, and finds no such model
    assert isinstance(ended, Finished) and ended.code == 2 and "absent.onnx" in ended.cause


def test_what_is_no_result_is_a_failure_with_its_cause(tmp_path: Path) -> None:
    row = conclude(task(), None, Finished(2, "no such model", 1.5), "box", 1)
    assert (row.outcome, row.cause, row.node) == ("failed", "no such model", "box")
    run = tmp_path / "20261127T000000Z-digits"
    run.mkdir()
    (run / "result.json").write_text("{")
    row = conclude(task(), tmp_path, Finished(0, "", 1.5), "box", 1)
    assert row.outcome == "failed" and "cut short" in row.cause
    assert conclude(task(), None, Finished(0, "", 1.5), "box", 1).outcome == "failed"
