"""INT8 programs for PyTorch: their kernels, their fidelity, and what is refused."""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402

from harness.artifacts.torch_int8 import load  # noqa: E402
from harness.errors import ModelError, QuantizationError  # noqa: E402
from harness.quantize.job import QuantizeJob  # noqa: E402
from harness.quantize.torch import quantize  # noqa: E402
from harness.quantize.torch_engine import choose  # noqa: E402
from harness.quantize.torch_observers import entropy_range, percentile_range  # noqa: E402


class Small(nn.Module):
    """A convolution with each of the activations that fuse, a residual sum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.head(self.second(x) + x)


class Twice(nn.Module):
    """One ReLU module called from two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.two(self.relu(self.one(x))))


class Gate(nn.Module):
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Branches(nn.Module):
    """Control flow that depends on the data, one level down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.gate = Gate()

    def forward(self, x: Any) -> Any:
        return self.gate(self.conv(x))


class Sine(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.sin().cumsum(1)


class Tokens(nn.Module):
    """Two inputs, integers first."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.linear = nn.Linear(8, 8)

    def forward(self, ids: Any, scale: Any) -> Any:
        return self.linear(self.table(ids)) * scale


X = (torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1)),)


def job(folder: Path, arrays: dict[str, Any] | None = None, **fields: Any) -> QuantizeJob:
    generator = np.random.default_rng(0)
    drawn = {"x": generator.standard_normal((10, 3, 12, 12), np.float32)}
    path = folder / "calibration.npz"
    np.savez(path, **(arrays or drawn))
    return QuantizeJob(
        **{
            "precision": "int8",
            "calibration_path": str(path),
            "calibration_source": "file",
            "calibration_sha256": "ab",
            "calibration_samples": 10,
            "batch_size": 4,
            **fields,
        }
    )


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def sqnr_db(exact: Any, noisy: Any) -> float:
    return float(10 * torch.log10(exact.square().sum() / (exact - noisy).square().sum()))


def kinds(program: Any) -> list[str]:
    return [node.kind() for node in program.inlined_graph.nodes()]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_is_near_fp32_and_runs_integer_kernels(method: Any, tmp_path: Path) -> None:
    module = seeded(Small)
    path = tmp_path / "small"
    made = quantize(module, X, path, job(tmp_path, method=method))
    assert made.method == method
    assert made.calibration_samples == 10
    assert made.calibration_sha256 == "ab"
    program = load(path)
    found = kinds(program)
    assert found.count("quantized::conv2d_relu") == 2
    assert found.count("quantized::linear") == 1
    assert not [kind for kind in found if kind in ("aten::conv2d", "aten::_convolution")]
    assert found.count("quantized::conv2d_relu") == 2  # ReLU6 fused
    assert ("aten::hardtanh" in found) == choose().narrow  # 7 bits do not end at 6 by themselves
    with torch.inference_mode():
        assert sqnr_db(module(X[0]), program(X[0])) > 25


def test_a_fused_relu6_still_clips_at_six(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU6()).eval()
    nn.init.constant_(module[0].weight, 4.0)
    path = tmp_path / "clipped"
    quantize(module, X, path, job(tmp_path))
    with torch.inference_mode():
        out = load(path)(X[0] * 100)
    assert float(out.max()) == pytest.approx(6, abs=6 / 255)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a limit of x86 instruction sets")
def test_int8_is_right_where_8_bit_sums_overflow(tmp_path: Path) -> None:
    """Without VNNI, as oneDNN can be told that this CPU is; it reads that as it loads."""
    code = """
import sys
from pathlib import Path
import test_quantize_torch as here
from harness.quantize.torch_engine import choose
assert choose() == ("x86", True), choose()
here.test_a_fused_relu6_still_clips_at_six(Path(sys.argv[1]))
here.test_static_int8_is_near_fp32_and_runs_integer_kernels("minmax", Path(sys.argv[1]))
"""
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        env={**os.environ, **limits},
        check=True,
    )


def test_every_integer_layer_is_compared_with_fp32(tmp_path: Path) -> None:
    made = quantize(seeded(Small), X, tmp_path / "small", job(tmp_path))
    assert made.proof is not None
    # two convolutions, the sum and the classifier
    assert (made.proof.layers, made.proof.left) == (4, {})
    assert made.proof.worst in {"first.0", "second.0", "add", "head.2"}
    assert made.proof.worst_sqnr_db is not None
    assert made.proof.worst_sqnr_db > 25


def test_a_layer_that_computes_something_else_stays_in_fp32(tmp_path: Path) -> None:
    """Among 4,000 classes no share reaches half of the 1/256 that is torch's step there."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(432, 4000), nn.Softmax(-1)).eval()
    nn.init.normal_(module[1].weight, std=0.01)
    made = quantize(module, X, tmp_path / "softmax", job(tmp_path))
    assert made.proof is not None
    assert list(made.proof.left) == ["2"]
    assert "computes something else in int8 (SQNR 0.0 dB" in made.proof.left["2"]
    program = load(tmp_path / "softmax")
    assert kinds(program).count("quantized::linear") == 1
    with torch.inference_mode():
        assert sqnr_db(module(X[0]), program(X[0])) > 25


def test_a_transposed_convolution_is_right_or_left_out(tmp_path: Path) -> None:
    """oneDNN's takes no notice of an input's zero point (PyTorch 2.13); FBGEMM's does."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 3, 3)).eval()
    made = quantize(module, X, tmp_path / "transposed", job(tmp_path))
    assert made.proof is not None
    assert made.proof.layers + len(made.proof.left) == 2
    assert made.proof.left.keys() <= {"1"}
    with torch.inference_mode():
        assert sqnr_db(module(X[0]), load(tmp_path / "transposed")(X[0])) > 25


def test_dynamic_linear_layers_may_have_an_activation(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 8), nn.ReLU()
    )
    made = quantize(module.eval(), X, tmp_path / "relu", job(tmp_path, mode="dynamic"))
    assert made.proof is not None
    assert (made.proof.layers, made.proof.worst, made.proof.left) == (1, "3", {})


def test_a_program_of_full_range_is_refused_where_sums_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small"
    quantize(seeded(Small), X, path, job(tmp_path))
    if choose().narrow:
        load(path)
        return
    monkeypatch.setattr("harness.artifacts.torch_int8.exact", lambda name: False)
    with pytest.raises(
        ModelError, match=r"8-bit products without overflow.*quantize it again here"
    ):
        load(path)


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = seeded(Small)
    before = module(X[0])
    quantize(module, X, tmp_path / "small", job(tmp_path))
    assert isinstance(module.first[2], nn.ReLU6)
    assert torch.equal(module(X[0]), before)


def test_a_module_called_twice_is_no_obstacle(tmp_path: Path) -> None:
    module = seeded(Twice)
    quantize(module, X, tmp_path / "twice", job(tmp_path))
    program = load(tmp_path / "twice")
    assert kinds(program).count("quantized::conv2d_relu") == 2
    with torch.inference_mode():
        assert sqnr_db(module(X[0]), program(X[0])) > 25


def test_dynamic_quantizes_linear_layers_and_needs_no_data(tmp_path: Path) -> None:
    module = seeded(Small)
    path = tmp_path / "dynamic"
    made = quantize(module, X, path, job(tmp_path, mode="dynamic", calibration_path=""))
    assert (made.method, made.calibration_source, made.calibration_samples) == (
        "dynamic",
        "none",
        0,
    )
    assert "quantized::linear_dynamic" in kinds(load(path))


def test_inputs_are_matched_by_name(tmp_path: Path) -> None:
    module = seeded(Tokens)
    ids = torch.arange(8).reshape(4, 2)
    scale = torch.full((4, 1, 1), 3.0)
    arrays = {
        "scale": np.full((10, 1, 1), 3, np.float32),
        "ids": np.arange(20).reshape(10, 2) % 10,
    }
    path = tmp_path / "tokens"
    quantize(module, (ids, scale), path, job(tmp_path, arrays), ("ids", "scale"))
    with torch.inference_mode():
        assert sqnr_db(module(ids, scale), load(path)(ids, scale)) > 25


def test_control_flow_on_data_is_refused_by_module_path(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"'gate' \(Gate, line \d+\).*control flow"):
        quantize(seeded(Branches), X, tmp_path / "branches", job(tmp_path))
    assert not (tmp_path / "branches").exists()


def test_nothing_to_quantize_names_the_operators(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"aten::cumsum, aten::sin;.*convolutions, linear"):
        quantize(Sine(), X, tmp_path / "none", job(tmp_path, mode="static"))
    with pytest.raises(QuantizationError, match=r"dynamic quantization covers Linear"):
        quantize(nn.Conv2d(3, 3, 1), X, tmp_path / "none", job(tmp_path, mode="dynamic"))


def test_an_exported_program_is_refused_as_such(tmp_path: Path) -> None:
    program = torch.export.export(seeded(Small), X).module()
    with pytest.raises(QuantizationError, match=r"exported program.*aten\.conv2d"):
        quantize(program, X, tmp_path / "exported", job(tmp_path))


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="fp16"):
        quantize(seeded(Small), X, tmp_path / "half", job(tmp_path, precision="fp16"))


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_loading_runs_no_pickled_code(tmp_path: Path) -> None:
    """The same archive with its pickle replaced by one that would create a file."""
    honest, evil, proof = (tmp_path / name for name in ("honest", "evil", "proof"))
    quantize(seeded(Small), X, honest, job(tmp_path))
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(evil, "w") as target:
        replaced = 0
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("/data.pkl"):
                data = pickle.dumps(Attack(proof), protocol=2)
                replaced += 1
            target.writestr(item, data)
    assert replaced == 1
    with pytest.raises(ModelError, match="no int8 program"):
        load(evil)
    assert not proof.exists()


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"not an archive")
    with pytest.raises(ModelError, match="no int8 program"):
        load(tmp_path / "broken")
    with pytest.raises(ModelError, match="no int8 program"):
        load(tmp_path / "absent")


def test_percentile_cuts_half_on_each_side() -> None:
    counts = torch.ones(1000)
    low, high = percentile_range(counts, torch.tensor(0.0), torch.tensor(1000.0), 90.0)
    assert float(low) == pytest.approx(50, abs=1)
    assert float(high) == pytest.approx(950, abs=1)


def test_entropy_drops_a_lone_outlier_and_keeps_what_is_even() -> None:
    even = torch.ones(2048)
    low, high = entropy_range(even, torch.tensor(-1.0), torch.tensor(1.0))
    assert (float(low), float(high)) == (-1.0, 1.0)
    centres = torch.linspace(0, 100, 2048)
    outlier = (1e6 * torch.exp(-((centres / 5) ** 2))).round()
    outlier[-1] = 1
    low, high = entropy_range(outlier, torch.tensor(0.0), torch.tensor(100.0))
    assert float(low) == 0.0
    assert 10 < float(high) < 40


def test_entropy_takes_no_notice_of_a_heap_of_zeros() -> None:
    counts = torch.exp(-(torch.linspace(0, 3, 2048) ** 2)) * 1000
    heaped = counts.clone()
    heaped[0] = 1e6
    bounds = torch.tensor(0.0), torch.tensor(3.0)
    assert entropy_range(heaped, *bounds) == entropy_range(counts, *bounds)
