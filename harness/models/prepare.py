"""`prepare`: from a spec to files that a worker can load.

    source ── FP32 artifact ── bound inputs ── artifact at the precision asked for

Each step is a cached product. The driver walks the chain and stops where a framework is needed
first; then a builder process walks the same chain and makes what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness import maybe
from harness.errors import UsageError
from harness.host.cache_root import default_root
from harness.models.cache import Cache, NeedsBuilder
from harness.models.fp32 import Fp32, code_sha256, find_fp32
from harness.models.own_format import convert
from harness.models.packed import unpack
from harness.models.prepared import Prepared
from harness.models.reduced import data_sha256, reduce
from harness.models.sources import Source, find_source
from harness.protocols import TensorSpec, Wanted
from harness.records.result import ModelInfo
from harness.spec import RunSpec
from harness.zoo import ZOO
from harness.zoo.shipped import ASSETS, manifest

INPUTS = "inputs.npz"
DATA = "data.npz"
FORMATS = ("onnx", "torch", "torch-int8", "torch-int8-linear")
TEST_SPLIT = "digits_test.npz"


class _Bound(msgspec.Struct, frozen=True):
    data: str


class _Dataset(msgspec.Struct, frozen=True):
    """``copied``: a copy under the inputs' own names lies beside this record."""

    samples: int
    copied: bool


class _Data(msgspec.Struct, frozen=True):
    """Samples: the user's, or those that come with the model."""

    path: str
    name: str
    sha256: str


def model_names() -> dict[str, str]:
    """Every zoo model with a line about it, for ``harness list``."""
    return {name: recipe.description for name, recipe in ZOO.items()}


def prepare(spec: RunSpec, wanted: Wanted) -> Prepared:
    """Make ``spec.model`` ready as its backend wants it.

    Builds what is not cached, in a process of its own. Raises `UsageError`, `ModelError`,
    `QuantizationError` or `DataError`, each one line.
    """
    cache = Cache(default_root(), building=False)
    if spec.artifact is not None:
        return unpack(spec, cache)
    try:
        return assemble(spec, wanted, cache)
    except NeedsBuilder:
        from harness.models.builder_client import Job, run_builder

        made = run_builder(Job(spec=spec, wanted=wanted, root=str(cache.root)))
        return maybe.convert(made, Prepared)


def assemble(spec: RunSpec, wanted: Wanted, cache: Cache) -> Prepared:
    """`prepare` with what ``cache`` holds or may build. Raises `NeedsBuilder` for the rest."""
    basis = wanted.of or wanted
    if basis.format not in FORMATS:
        raise UsageError(
            f"no model comes as {basis.format!r}",
            f"formats are {', '.join(FORMATS)}; a backend makes its own of one of them",
        )
    source = find_source(spec.model)
    # both fail early, before anything is built
    for flag, path in (
        ("--inputs", spec.inputs),
        ("--dataset", spec.dataset),
        ("--calibration", spec.calibration),
    ):
        if path is not None:
            data_sha256(flag, Path(path))
    fp32 = find_fp32(spec, source, basis.format, cache)
    original = _original(spec, fp32, basis.format, cache)
    _check_scores(spec, fp32)
    labelled = _labelled(spec, source, fp32, cache)
    given = _samples(spec, fp32, "--inputs", spec.inputs, cache) if spec.inputs else None
    inputs_path, input_data = _inputs(spec, fp32, given or labelled, cache)
    artifact, reference = fp32.artifact, None
    if original is not None:
        reference = original[1].artifact
        if basis.format == "onnx":  # where TensorRT has to be told; a torch module would be cast
            artifact = msgspec.structs.replace(artifact, precision=spec.precision)
    elif spec.precision != "fp32" and basis.precision == "fp32":
        reference, artifact = artifact, msgspec.structs.replace(artifact, precision=spec.precision)
    elif spec.precision != "fp32":
        artifact = reduce(spec, source, fp32, basis, inputs_path, cache)
        reference = fp32.artifact
    if wanted.of is not None:
        artifact = convert(spec, wanted.format, artifact, inputs_path, cache)
        reference = reference and convert(spec, wanted.format, reference, inputs_path, cache)
    random = source.kind == "zoo" and ZOO[source.name].random_weights
    evaluation = given if random or labelled is None else labelled
    return Prepared(
        model=_model_info(source, fp32, original, random, input_data),
        artifact=artifact,
        reference=reference,
        inputs_path=inputs_path,
        evaluation_path=evaluation.path if evaluation else None,
        evaluation_name=evaluation.name if evaluation else "",
        evaluation_sha256=evaluation.sha256 if evaluation else "",
        drawn=fp32.ranges if evaluation is None and fp32.examples is None else None,
    )


def _original(spec: RunSpec, given: Fp32, format: str, cache: Cache) -> tuple[Source, Fp32] | None:
    """What ``--reference`` names. Raises `UsageError` where it takes other inputs."""
    if spec.reference is None:
        return None
    source = find_source(spec.reference)
    fp32 = find_fp32(msgspec.structs.replace(spec, model=spec.reference), source, format, cache)
    theirs, ours = (_shapes(one.artifact.inputs) for one in (fp32, given))
    if theirs != ours:
        raise UsageError(
            f"--reference {spec.reference} takes {theirs}, and the model {ours}",
            "name the FP32 model that this one was made from",
        )
    return source, fp32


def _shapes(inputs: Iterable[TensorSpec]) -> str:
    return ", ".join(sorted(f"{i.name} {i.dtype} {'x'.join(map(str, i.shape))}" for i in inputs))


def _model_info(
    source: Source, fp32: Fp32, original: tuple[Source, Fp32] | None, random: bool, input_data: str
) -> ModelInfo:
    """Of the FP32 model, under its name, also where another file was made from it and is run."""
    own_sha256 = "" if original is None else fp32.artifact.sha256 or fp32.sha256
    source, fp32 = original or (source, fp32)
    return ModelInfo(
        name=source.name,
        source=source.kind,
        sha256=fp32.sha256,
        file_sha256=own_sha256,
        parameters=fp32.parameters,
        random_weights=random,
        inputs=fp32.artifact.inputs,
        outputs=fp32.artifact.outputs,
        input_data=input_data,
        batch_dim=fp32.batch_dim,
        file_size_bytes=fp32.artifact.size_bytes,
    )


def _check_scores(spec: RunSpec, fp32: Fp32) -> None:
    """Raises `UsageError` for ``--scores`` that names no output."""
    names = [output.name for output in fp32.artifact.outputs]
    if spec.scores is not None and names and spec.scores not in names:
        raise UsageError(
            f"--scores names {spec.scores!r}, which is no output of the model",
            f"its outputs are {', '.join(names)}",
        )


def has_samples(spec: RunSpec) -> bool:
    """Whether there are samples beside the bound inputs: the user's, or the model's own."""
    source = find_source(spec.model)
    own = source.kind == "zoo" and source.name == "digits"
    return own or spec.dataset is not None or spec.inputs is not None


def _labelled(spec: RunSpec, source: Source, fp32: Fp32, cache: Cache) -> _Data | None:
    if spec.dataset is not None:
        return _samples(spec, fp32, "--dataset", spec.dataset, cache)
    if source.kind == "zoo" and source.name == "digits":
        sha256 = manifest().sha256[TEST_SPLIT]
        return _Data(str(ASSETS / TEST_SPLIT), "digits test split", sha256)
    return None


def _samples(spec: RunSpec, fp32: Fp32, flag: str, file: str, cache: Cache) -> _Data:
    """The user's file, checked once for each content and set of inputs; a dataset has labels."""
    path, labelled = Path(file), flag == "--dataset"
    inputs, outputs = fp32.artifact.inputs, fp32.artifact.outputs

    def build(folder: Path) -> _Dataset:
        from harness.models import data

        read = data.read_samples(
            path,
            flag,
            inputs,
            spec.batch_size,
            labelled=labelled,
            infinite=spec.allow_infinite,
        )
        if labelled:
            data.check_classes(f"{flag} {path}", read.arrays["labels"], outputs, spec.scores)
        if read.changed or not labelled:  # a file of the user's may hold more than the inputs
            data.save(folder / DATA, read.arrays)
        return _Dataset(read.samples, read.changed or not labelled)

    sha256 = data_sha256(flag, path)
    key = {
        "file": sha256,
        "flag": flag,
        "inputs": inputs,
        "outputs": outputs,
        "scores": spec.scores,
        "infinite": spec.allow_infinite,
        "batch": spec.batch_size,
        "code": code_sha256("models/data.py"),
    }
    made = cache.product("dataset", key, _Dataset, build, light=True)
    where = made.folder / DATA if made.record.copied else path.absolute()
    return _Data(str(where), path.name, sha256)


def _inputs(spec: RunSpec, fp32: Fp32, known: _Data | None, cache: Cache) -> tuple[str, str]:
    """The bound inputs' file, and in words what it holds."""
    inputs = fp32.artifact.inputs

    def build(folder: Path) -> _Bound:
        from harness.models import data

        path = known.path if known else fp32.examples
        if path is None:
            data.save(folder / INPUTS, data.draw(inputs, fp32.ranges, spec.seed))
        else:
            data.save(folder / INPUTS, data.take(data.arrays(path), inputs, spec.batch_size))
        return _Bound(text)

    if known is not None:
        text = f"{known.name}, first samples ({spec.batch_size})"
    elif fp32.examples is not None:
        text = "the model's own example inputs"
    else:
        text = f"drawn, seed {spec.seed}"
    key = {
        "inputs": inputs,
        "batch": spec.batch_size,
        "data": known.sha256 if known else fp32.examples_sha256,
        "ranges": fp32.ranges,
        "seed": spec.seed,
        "text": text,
        "code": code_sha256("models/data.py"),
    }
    made = cache.product("inputs", key, _Bound, build, light=True)
    return str(made.folder / INPUTS), text
