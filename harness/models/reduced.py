"""The same model at another precision: calibration data found, quantizer asked, product cached."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.errors import ModelError, QuantizationError
from harness.host.digest import sha256_of
from harness.models.cache import Cache
from harness.models.fp32 import Fp32, code_sha256, find_fp32, library_versions
from harness.models.sources import Source, check_file, find_source
from harness.protocols import Artifact, Quantization, Wanted
from harness.quantize.cost import metered
from harness.quantize.job import CalibrationSource, QuantizeJob
from harness.quantize.onnx_session import DISTRIBUTIONS
from harness.spec import RunSpec
from harness.zoo.shipped import ASSETS, manifest

DRAWN_SAMPLES = 32
SAMPLES = "samples.npz"


class _Calibration(msgspec.Struct, frozen=True):
    path: str
    source: CalibrationSource
    sha256: str
    samples: int


class _Samples(msgspec.Struct, frozen=True):
    count: int


def reduce(
    spec: RunSpec, source: Source, fp32: Fp32, wanted: Wanted, inputs_path: str, cache: Cache
) -> Artifact:
    """The artifact at ``spec.precision``, as ``wanted``.

    Raises `QuantizationError`, `DataError`, or `NeedsBuilder`
    where a framework is needed first.
    """
    format = wanted.format
    if format == "torch":
        return _cast(spec, fp32)
    if format == "onnx" and spec.precision == "bf16":
        raise QuantizationError("there is no bf16 route from ONNX", "use --precision fp16 or int8")
    if format == "torch-int8-linear":
        return _torch_linear(spec, source, fp32, inputs_path, cache)
    job = _job(spec, source, fp32, wanted, cache)
    if format == "onnx":
        return _onnx(spec, fp32, job, wanted.symmetric, cache)
    return _torch_int8(spec, source, fp32, job, inputs_path, cache)


def job_of(spec: RunSpec, wanted: Wanted, cache: Cache) -> QuantizeJob:
    """What the quantizer is asked for ``spec``, whose products are in ``cache`` already."""
    source = find_source(spec.model)
    return _job(spec, source, find_fp32(spec, source, wanted.format, cache), wanted, cache)


def _job(spec: RunSpec, source: Source, fp32: Fp32, wanted: Wanted, cache: Cache) -> QuantizeJob:
    calibration = _calibration(spec, source, fp32, cache)
    return QuantizeJob(
        precision=spec.precision if spec.precision != "fp32" else "int8",
        mode=spec.quantization,
        method=spec.calibration_method,
        calibration_path=calibration.path,
        calibration_source=calibration.source,
        calibration_sha256=calibration.sha256,
        calibration_samples=calibration.samples,
        batch_size=spec.batch_size,
        seed=spec.seed,
        libraries=_libraries(wanted),
    )


def _libraries(wanted: Wanted) -> tuple[str, ...]:
    """Of custom operators. Raises `ModelError` for one that is no file."""
    paths = [Path(path).absolute() for path in wanted.libraries]
    for path in paths:
        check_file(path)
    return tuple(map(str, paths))


def _cast(spec: RunSpec, fp32: Fp32) -> Artifact:
    """PyTorch casts the module when it loads it; nothing is to be built."""
    route = f"torch.nn.Module.to {spec.precision}"
    made = Quantization(route, "cast", "all weights and activations", "none", "", 0)
    size = fp32.size_bytes[spec.precision]
    return msgspec.structs.replace(
        fp32.artifact, precision=spec.precision, size_bytes=size, quantization=made
    )


def _calibration(spec: RunSpec, source: Source, fp32: Fp32, cache: Cache) -> _Calibration:
    """The user's file, else the model's own split, else the inputs given, else drawn ones."""
    if spec.calibration is not None:
        return _from_file(spec, fp32, "--calibration", Path(spec.calibration), cache)
    if source.kind == "zoo" and source.name == "digits":
        facts, name = manifest(), "digits_calibration.npz"
        path, count = str(ASSETS / name), facts.calibration_samples
        return _Calibration(path, "model split", facts.sha256[name], count)
    if spec.inputs is not None:
        return _from_file(spec, fp32, "--inputs", Path(spec.inputs), cache)
    if fp32.examples is not None:
        return _from_examples(spec, fp32)
    return _drawn(spec, fp32, cache)


def _from_file(spec: RunSpec, fp32: Fp32, flag: str, path: Path, cache: Cache) -> _Calibration:
    inputs = fp32.artifact.inputs

    def build(folder: Path) -> _Samples:
        from harness.models import data

        read = data.read_samples(
            path, flag, inputs, spec.batch_size, labelled=False, infinite=spec.allow_infinite
        )
        data.save(folder / SAMPLES, read.arrays)
        return _Samples(read.samples)

    sha256 = data_sha256(flag, path)
    key = {
        "file": sha256,
        "flag": flag,
        "inputs": inputs,
        "infinite": spec.allow_infinite,
        "batch": spec.batch_size,
        "code": code_sha256("models/data.py"),
    }
    made = cache.product("calibration", key, _Samples, build, light=True)
    return _Calibration(str(made.folder / SAMPLES), "file", sha256, made.record.count)


def data_sha256(flag: str, path: Path) -> str:
    """Raises `DataError` where the file cannot be read."""
    from harness.errors import DataError

    try:
        check_file(path)
        return sha256_of([path])
    except ModelError as error:
        raise DataError(f"{flag}: {error.message}", error.remedy) from error


def _from_examples(spec: RunSpec, fp32: Fp32) -> _Calibration:
    """A factory's examples are the only inputs known to suit it."""
    path = fp32.examples or ""
    return _Calibration(path, "drawn inputs", fp32.examples_sha256, spec.batch_size)


def _drawn(spec: RunSpec, fp32: Fp32, cache: Cache) -> _Calibration:
    inputs = fp32.artifact.inputs
    count = max(DRAWN_SAMPLES, spec.batch_size)

    def build(folder: Path) -> _Samples:
        from harness.models import data

        # another seed than the bound inputs have: fidelity on calibration samples flatters
        seed = spec.seed + 1
        arrays = data.draw_samples(inputs, fp32.ranges, seed, spec.batch_size, count)
        data.save(folder / SAMPLES, arrays)
        return _Samples(count)

    key = {
        "inputs": inputs,
        "ranges": fp32.ranges,
        "seed": spec.seed,
        "batch": spec.batch_size,
        "count": count,
        "code": code_sha256("models/data.py"),
    }
    made = cache.product("calibration", key, _Samples, build, light=True)
    sha256 = made.files[SAMPLES].sha256
    return _Calibration(str(made.folder / SAMPLES), "drawn inputs", sha256, count)


def _key(spec: RunSpec, fp32: Fp32, job: QuantizeJob, *libraries: str) -> dict[str, object]:
    settings = msgspec.to_builtins(msgspec.structs.replace(job, calibration_path=""))
    return {
        "model": fp32.artifact.sha256,
        "inputs": fp32.artifact.inputs,
        "job": settings,
        "code": code_sha256("quantize/*.py", "artifacts/torch_int8.py"),
        "versions": library_versions(*libraries),
    }


def _onnx(spec: RunSpec, fp32: Fp32, job: QuantizeJob, symmetric: bool, cache: Cache) -> Artifact:
    from harness.quantize.onnx import saturates_here

    target = f"model.{job.precision}.onnx"

    def build(folder: Path) -> Quantization:
        from harness.quantize.onnx import quantize

        source = Path(fp32.artifact.path)
        return metered(lambda: quantize(source, folder / target, job, symmetric=symmetric))

    key = {
        **_key(spec, fp32, job, *DISTRIBUTIONS),
        "symmetric": symmetric,
        "narrow": saturates_here(),
        "libraries": sha256_of(map(Path, job.libraries)),
    }
    made = cache.product("onnx-quantized", key, Quantization, build)
    return msgspec.structs.replace(
        fp32.artifact,
        path=str(made.folder / target),
        precision=spec.precision,
        sha256=made.files[target].sha256,
        size_bytes=sum(stamp.size_bytes for stamp in made.files.values()),
        quantization=made.record,
    )


def _torch_int8(
    spec: RunSpec, source: Source, fp32: Fp32, job: QuantizeJob, inputs_path: str, cache: Cache
) -> Artifact:
    from harness.quantize.processor import processor

    target = "model.int8"

    def build(folder: Path) -> Quantization:
        import numpy as np

        from harness.artifacts.torch_source import load_module
        from harness.models.torch_build import example_tensors
        from harness.quantize.torch import quantize

        module = load_module(fp32.artifact.source, spec.seed)
        with np.load(inputs_path, allow_pickle=False) as arrays:
            example = example_tensors(fp32.artifact.inputs, arrays)
        names = [spec.name for spec in fp32.artifact.inputs]
        return metered(lambda: quantize(module, example, folder / target, job, names))

    if source.kind == "factory":
        made = cache.by_content("torch-quantized", Quantization, build, source.name)
    else:
        key = _key(spec, fp32, job, "torch", "torchao")
        key |= {"source": fp32.sha256, "processor": processor()}
        made = cache.product("torch-quantized", key, Quantization, build)
    return msgspec.structs.replace(
        fp32.artifact,
        format="torch-int8",
        path=str(made.folder / target),
        precision=spec.precision,
        sha256=made.files[target].sha256,
        size_bytes=sum(stamp.size_bytes for stamp in made.files.values()),
        quantization=made.record,
    )


class _Linear(msgspec.Struct, frozen=True):
    quantization: Quantization
    size_bytes: int


def _torch_linear(
    spec: RunSpec, source: Source, fp32: Fp32, inputs_path: str, cache: Cache
) -> Artifact:
    """The module as it is, with a plan of its layers that a worker will turn to int8."""
    target = "layers.json"

    def build(folder: Path) -> _Linear:
        import numpy as np

        from harness.artifacts.torch_source import load_module
        from harness.models.torch_build import example_tensors
        from harness.quantize.torch_linear import plan, write

        module = load_module(fp32.artifact.source, spec.seed)
        with np.load(inputs_path, allow_pickle=False) as arrays:
            example = example_tensors(fp32.artifact.inputs, arrays)
        found = plan(module, example, source.name)
        return _Linear(write(found, folder / target), found.size_bytes)

    if source.kind == "factory":
        made = cache.by_content("torch-linear", _Linear, build, source.name)
    else:
        key = {
            "model": fp32.sha256,
            "inputs": fp32.artifact.inputs,
            "seed": spec.seed,
            "code": code_sha256("quantize/torch_linear.py", "artifacts/torch_linear.py"),
            "versions": library_versions("torch"),
        }
        made = cache.product("torch-linear", key, _Linear, build)
    return msgspec.structs.replace(
        fp32.artifact,
        format="torch-int8-linear",
        path=str(made.folder / target),
        precision=spec.precision,
        sha256=made.files[target].sha256,
        size_bytes=made.record.size_bytes,
        quantization=made.record.quantization,
    )
