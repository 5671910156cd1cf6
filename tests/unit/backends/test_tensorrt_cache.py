"""The engine cache on hand-made files: what does not fit is never handed on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.backends.tensorrt.cache import (
    EngineCache,
    EngineKey,
    Platform,
    Rejected,
    external_files,
)

PLAN = bytes(range(256)) * 40


def key(**changed: Any) -> EngineKey:
    platform = {
        "gpu": "NVIDIA Test GPU",
        "compute_capability": "9.0",
        "multiprocessors": 132,
        "driver": "580.95 (CUDA 13.0)",
        "tensorrt": "11.4.0",
    }
    platform.update({name: changed.pop(name) for name in list(changed) if name in platform})
    fields: dict[str, Any] = {
        "platform": Platform(**platform),
        "model_sha256": "abc",
        "external_data": (),
        "inputs": {"x": ("float32", (1, 3))},
        "shape_values_sha256": "",
        "options": {"tf32": "off"},
    }
    return EngineKey(**{**fields, **changed})


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    made = EngineCache(key(), tmp_path)
    assert made.load() is None
    assert made.store(PLAN, 12.5, "2026-01-01T00:00:00+00:00") == ""
    return made


def the(suffix: str, tmp_path: Path) -> Path:
    (path,) = (tmp_path / "tensorrt").glob(f"*.{suffix}")
    return path


def reason(cache: EngineCache) -> str:
    found = cache.load()
    assert isinstance(found, Rejected)
    return found.reason


def test_what_was_stored_comes_back(cache: EngineCache, tmp_path: Path) -> None:
    found = cache.load()
    assert isinstance(found, tuple)
    plan, record = found
    assert plan == PLAN
    assert (record.build_s, record.plan_bytes, record.key) == (12.5, 10240, key())
    assert the("plan", tmp_path).read_bytes() == PLAN  # as trtexec would load it


@pytest.mark.parametrize(
    "changed",
    [
        {"gpu": "another"},
        {"compute_capability": "8.9"},
        {"multiprocessors": 14},
        {"driver": "580.96 (CUDA 13.0)"},
        {"tensorrt": "11.4.1"},
        {"model_sha256": "def"},
        {"external_data": (("w.bin", 1, 2),)},
        {"inputs": {"x": ("float32", (2, 3))}},
        {"inputs": {"x": ("float16", (1, 3))}},
        {"shape_values_sha256": "1"},
        {"options": {"tf32": "on"}},
        {"format": 0},
    ],
)
def test_every_part_of_the_key_counts(
    cache: EngineCache, tmp_path: Path, changed: dict[str, Any]
) -> None:
    other = EngineCache(key(**changed), tmp_path)
    assert other.key.digest != cache.key.digest
    assert other.load() is None


def test_an_engine_of_another_gpu_under_this_name(cache: EngineCache, tmp_path: Path) -> None:
    foreign = EngineCache(key(gpu="NVIDIA Old GPU"), tmp_path / "elsewhere")
    foreign.store(PLAN, 1.0, "then")
    for suffix in ("plan", "json"):
        source = the(suffix, tmp_path / "elsewhere")
        the(suffix, tmp_path).write_bytes(source.read_bytes())
    assert reason(cache) == "it was built for gpu NVIDIA Old GPU, not NVIDIA Test GPU"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:100] + b"!" + data[101:],
    ],
)
def test_a_damaged_plan(cache: EngineCache, tmp_path: Path, damage: Any) -> None:
    path = the("plan", tmp_path)
    stamp = path.stat()
    path.write_bytes(damage(PLAN))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # its time tells nothing
    assert reason(cache) == "the plan was damaged or changed since it was built"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"key": 1}', b"[" * 5000])
def test_a_damaged_record(cache: EngineCache, tmp_path: Path, data: bytes) -> None:
    the("json", tmp_path).write_bytes(data)
    assert reason(cache) == "its record cannot be read"


def test_a_record_that_claims_a_plan_without_end(cache: EngineCache, tmp_path: Path) -> None:
    path = the("json", tmp_path)
    record = msgspec.json.decode(path.read_bytes())
    for size in (-5, 2**62):
        path.write_bytes(msgspec.json.encode({**record, "plan_bytes": size}))
        assert isinstance(cache.load(), Rejected)


def test_what_is_no_file_is_not_waited_for(cache: EngineCache, tmp_path: Path) -> None:
    for suffix in ("plan", "json"):
        path = the(suffix, tmp_path)
        path.unlink()
        os.mkfifo(path)
        assert reason(cache).startswith("it cannot be read")


def test_a_plan_that_is_gone(cache: EngineCache, tmp_path: Path) -> None:
    the("plan", tmp_path).unlink()
    assert reason(cache) == "the plan is gone"
    cache.discard()
    assert cache.load() is None
    cache.discard()


def test_timings_are_kept_by_platform_and_checked(cache: EngineCache, tmp_path: Path) -> None:
    assert cache.timing() == b""
    cache.store_timing(b"timings")
    assert cache.timing() == b"timings"
    assert EngineCache(key(model_sha256="other"), tmp_path).timing() == b"timings"
    assert EngineCache(key(driver="other"), tmp_path).timing() == b""
    path = the("cache", tmp_path)
    for data in (path.read_bytes()[:-1], b"", b"short"):
        path.write_bytes(data)
        assert cache.timing() == b""
    path.unlink()
    os.mkfifo(path)
    assert cache.timing() == b""


def test_a_folder_that_cannot_be_made_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "tensorrt").write_text("in the way")
    blocked = EngineCache(key(), tmp_path)
    assert blocked.load() is None
    assert blocked.store(PLAN, 1.0, "now").startswith("not kept: ")
    blocked.store_timing(b"timings")
    assert blocked.timing() == b""


def test_weights_beside_the_model_are_part_of_it(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"graph")
    weights = tmp_path / "model.onnx.data"
    weights.write_bytes(b"1234567")
    assert external_files(model, 5) == ()
    assert external_files(model, 12) == (("model.onnx.data", 7, weights.stat().st_mtime_ns),)
