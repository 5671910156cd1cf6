"""Whether a duel's variants fit into memory at once, on planted machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engine.driver import room
from harness.engine.driver.room import Room
from harness.engine.outcome.evidence import LaunchRecord
from harness.errors import UsageError
from harness.host.memory import available_bytes
from harness.protocols import Artifact

GB = 10**9


def artifact(sha256: str, size_bytes: int) -> Artifact:
    return Artifact("onnx", "net.onnx", "", "fp32", sha256, size_bytes, ())


FP32, INT8 = artifact("a", 4 * GB), artifact("b", GB)


def test_files_that_do_not_fit_are_refused_with_what_does() -> None:
    both = Room(("fp32", "int8"), (FP32, INT8), "cpu")
    both.before_any(5 * GB)
    both.before_any(None)  # nobody says how much there is
    with pytest.raises(UsageError) as refused:
        both.before_any(5 * GB - 1)
    assert "2 variants at once need at least 5.000 GB of memory" in refused.value.message
    assert refused.value.message.endswith("int8 would fit")
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError, match="not one of them fits"):
        both.before_any(GB - 1)


def loaded(imported: float, peak: float) -> LaunchRecord:
    return LaunchRecord(
        memory={
            "imported": {"rss_bytes": imported},
            "loaded": {"rss_bytes": peak - 1, "peak_bytes": peak},
        }
    )


def test_a_twin_takes_what_the_first_one_took() -> None:
    twins = Room(("itself", "its twin"), (INT8, INT8), "cpu")
    record = loaded(0.2 * GB, 3.2 * GB)  # far more than its file
    twins.after_the_first(record, 3 * GB)
    with pytest.raises(UsageError, match=r"at least 6\.000 GB .* 5\.900 GB can be had: itself"):
        twins.after_the_first(record, round(2.9 * GB))


def test_another_model_counts_by_its_file() -> None:
    both = Room(("int8", "fp32"), (INT8, FP32), "cpu")
    both.after_the_first(loaded(0.2 * GB, 3.2 * GB), 4 * GB)
    with pytest.raises(UsageError, match="int8 would fit"):
        both.after_the_first(loaded(0.2 * GB, 3.2 * GB), 4 * GB - 1)
    both.after_the_first(LaunchRecord(), 4 * GB)  # nobody measured the first


def test_a_gpu_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "device_bytes", lambda device: 4 * GB)
    with pytest.raises(UsageError, match=r"of cuda:0's memory"):
        Room(("fp32", "int8"), (FP32, INT8), "cuda:0").before_any(100 * GB)


# -- how much there is -----------------------------------------------------------------------------


def machine(root: Path, available_kb: int, **group: int | str) -> str:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available_kb} kB\n")
    (root / "proc/self/cgroup").write_text("0::/job\n")
    folder = root / "sys/fs/cgroup/job"
    folder.mkdir(parents=True)
    for name, value in group.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")
    return str(root)


def test_the_kernel_says_what_is_available(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, 1000, max="max", current=5)) == 1_024_000


def test_a_cgroup_leaves_less(tmp_path: Path) -> None:
    root = machine(tmp_path, 1000, max=900_000, current=600_000, stat="anon 1\ninactive_file 50000")
    assert available_bytes(root) == 350_000


def test_a_full_cgroup_leaves_nothing(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, 1000, max=100, current=120)) == 0


def test_where_nobody_says_it_is_not_known(tmp_path: Path) -> None:
    assert available_bytes(str(tmp_path)) is None
