"""The FP32 model in the format that a backend asks for: found, described, if need be exported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harness.errors import ModelError, UsageError
from harness.host.digest import sha256_of
from harness.maybe import Maybe, convert
from harness.models.cache import Cache
from harness.models.shapes import resolve_output, resolve_shapes, symbol_sizes
from harness.models.sources import Source, check_external
from harness.protocols import Artifact, Declared, TensorSpec
from harness.spec import RunSpec
from harness.version import __version__
from harness.zoo import ZOO, Recipe
from harness.zoo.shipped import ASSETS, manifest

PACKAGE = Path(__file__).parents[1]
Ranges = dict[str, tuple[int, int]]
_TORCH_CODE = (
    "zoo/*.py",
    "artifacts/torch_source.py",
    "artifacts/torch_values.py",
    "artifacts/pt2.py",
    "artifacts/torchscript.py",
    "models/torch_build.py",
    "models/torchscript_inputs.py",
)


class Fp32(msgspec.Struct, frozen=True, kw_only=True):
    """``sha256`` is of the source (file, weights or recipe); ``size_bytes`` by precision where the
    artifact is rebuilt in any of them; ``examples`` is an .npz of the source's own inputs;
    ``batch_dim`` the dimension taken for the batch, in words.
    """

    artifact: Artifact
    sha256: str
    parameters: Maybe[int]
    ranges: Ranges = {}
    size_bytes: dict[str, int] = {}
    examples: str | None = None
    examples_sha256: str = ""
    batch_dim: str = ""


class Exported(msgspec.Struct, frozen=True):
    parameters: Maybe[int]


def find_fp32(spec: RunSpec, source: Source, format: str, cache: Cache) -> Fp32:
    """Raises `ModelError`, `UsageError`, or `NeedsBuilder` where a framework is needed first."""
    if spec.batch_dim is not None and (format != "onnx" or source.kind not in ("onnx", "pt2")):
        raise UsageError(
            f"--batch-dim {spec.batch_dim} names a dimension of an ONNX graph, and {spec.model!r} "
            "is run from none",
            "leave it out",
        )
    if format == "onnx":
        if source.name == "digits" and source.kind == "zoo":
            return _shipped(spec)
        return _onnx(spec, source, cache)
    if source.kind == "onnx":
        what = "an ONNX file" if source.path.lower().endswith(".onnx") else "no file of PyTorch's"
        raise ModelError(
            f"{source.path} is {what}; PyTorch runs .pt2 and TorchScript files",
            "give one of those, or package.module:factory; --backend onnxruntime runs ONNX files",
        )
    return _torch(spec, source, cache)


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions, and our own; empty for what is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow, and digits needs it not

    found = {"harness": __version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def code_sha256(*patterns: str) -> str:
    """Of our own source files, below the package: a product made by other code is another product.

    Raises `FileNotFoundError` for a pattern that no file matches: what it was to watch has moved.
    """
    found = {pattern: sorted(PACKAGE.glob(pattern)) for pattern in patterns}
    if unmatched := [pattern for pattern, paths in found.items() if not paths]:
        raise FileNotFoundError(f"no source file is {', '.join(unmatched)}")
    return sha256_of(sorted(path for paths in found.values() for path in paths))


def _shipped(spec: RunSpec) -> Fp32:
    """digits as ONNX: all there is to know stands in the manifest."""
    facts = manifest()
    inputs = resolve_shapes(facts.inputs, spec.input_shapes, spec.batch_size)
    path = ASSETS / "digits.onnx"
    artifact = Artifact(
        format="onnx",
        path=str(path),
        source="zoo:digits",
        precision="fp32",
        sha256=facts.sha256[path.name],
        size_bytes=path.stat().st_size,
        inputs=inputs,
        outputs=_outputs(facts.outputs, facts.inputs, inputs),
    )
    sha256 = facts.sha256["digits.npz"]
    return Fp32(artifact=artifact, sha256=sha256, parameters=facts.parameters)


def _outputs(
    outputs: Sequence[Declared], inputs: Sequence[Declared], specs: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    sizes = symbol_sizes(inputs, specs)
    return tuple(resolve_output(output, sizes) for output in outputs)


def _onnx(spec: RunSpec, source: Source, cache: Cache) -> Fp32:
    """Any other ONNX file: the user's own, or exported from torch."""
    path, sha256, parameters, examples = _onnx_file(spec, source, cache)
    main_sha256 = sha256_of([path]) if source.kind == "onnx" else sha256
    structure = _structure(spec, source, path, main_sha256, cache)
    files = [path, *(path.parent / location for location in structure.external)]
    for location in structure.external:
        check_external(path, location)
    total_sha256 = sha256_of(files) if structure.external else main_sha256
    artifact = Artifact(
        format="onnx",
        path=str(path),
        source=_name(source),
        precision="fp32",
        sha256=total_sha256,
        size_bytes=sum(file.stat().st_size for file in files),
        inputs=structure.inputs,
        outputs=structure.outputs,
        varying=structure.varying,
    )
    return Fp32(
        artifact=artifact,
        sha256=_source_sha256(spec, source, total_sha256),
        parameters=parameters or structure.parameters,
        ranges={name: (found.low, found.high) for name, found in structure.ranges.items()},
        examples=examples,
        examples_sha256=sha256_of([Path(examples)]) if examples else "",
        batch_dim=structure.batch_dim,
    )


class _Range(msgspec.Struct, frozen=True):
    low: int
    high: int


class _Structure(msgspec.Struct, frozen=True, kw_only=True):
    """`harness.models.onnx_file.OnnxStructure`, as read without importing onnx."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: dict[str, _Range]
    external: tuple[str, ...]
    parameters: int
    batch_dim: str
    varying: tuple[str, ...]


def _structure(spec: RunSpec, source: Source, path: Path, sha256: str, cache: Cache) -> _Structure:
    # an exported zoo model has only its batch left open
    given = {} if source.kind == "zoo" else spec.input_shapes

    def build(_: Path) -> _Structure:
        from harness.models.onnx_file import read_structure

        found = read_structure(path, given, spec.batch_size, spec.batch_dim)
        return msgspec.convert(msgspec.to_builtins(found), _Structure)

    key = {
        "file": sha256,
        "shapes": given,
        "batch": (spec.batch_size, spec.batch_dim),
        "code": code_sha256("models/onnx_*.py", "models/shapes.py"),
        "versions": library_versions("onnx"),
    }
    return cache.product("onnx-structure", key, _Structure, build).record


def _onnx_file(
    spec: RunSpec, source: Source, cache: Cache
) -> tuple[Path, str, Maybe[int] | None, str | None]:
    """The file, its hash where that is known, the parameters in torch, the source's examples."""
    if source.kind == "onnx":
        return Path(source.path), "", None, None
    if source.kind == "factory":
        return _exported_factory(spec, source, cache)
    if source.kind == "torchscript":
        return _exported_script(spec, source, cache)
    code = code_sha256(*_TORCH_CODE, "models/onnx_export.py")
    versions = library_versions("torch", "onnxscript", "onnx")
    if source.kind == "zoo":
        recipe = ZOO[source.name]
        inputs = zoo_inputs(source.name, spec)
        sample = {i.name: i.shape[1:] for i in inputs}
        key = {"zoo": source.name, "seed": spec.seed, "sample": sample}

        def build(folder: Path) -> Exported:
            from harness.models.torch_build import export_zoo

            outputs = [output.name for output in recipe.outputs]
            ranges = _zoo_ranges(recipe)
            return Exported(export_zoo(source.name, spec.seed, inputs, outputs, ranges, folder))
    else:
        key = {"pt2": sha256_of([Path(source.path)])}

        def build(folder: Path) -> Exported:
            from harness.models.torch_build import export_program

            return Exported(export_program(Path(source.path), folder))

    made = cache.product(
        "onnx-export", {**key, "code": code, "versions": versions}, Exported, build
    )
    model = "model.onnx"
    return made.folder / model, made.files[model].sha256, made.record.parameters, None


def _exported_factory(
    spec: RunSpec, source: Source, cache: Cache
) -> tuple[Path, str, Maybe[int] | None, str | None]:
    """A factory is code, whose result no hash of its file foretells: it runs every time."""

    def build(folder: Path) -> Exported:
        from harness.models.torch_build import export_example

        return Exported(
            export_example(_name(source), spec.seed, spec.input_shapes, spec.batch_size, folder)
        )

    made = cache.by_content("onnx-factory", Exported, build, source.name)
    model = "model.onnx"
    examples = str(made.folder / "examples.npz")
    return made.folder / model, made.files[model].sha256, made.record.parameters, examples


def _exported_script(
    spec: RunSpec, source: Source, cache: Cache
) -> tuple[Path, str, Maybe[int] | None, str | None]:
    samples = _own_samples(spec)

    def build(folder: Path) -> Exported:
        from harness.models.torch_build import export_example

        shapes, batch = spec.input_shapes, spec.batch_size
        return Exported(export_example(_name(source), spec.seed, shapes, batch, folder, samples))

    key = {
        "torchscript": _source_sha256(spec, source, ""),
        "shapes": spec.input_shapes,
        "batch": spec.batch_size,
        "samples": sha256_of([samples]) if samples else "",
        "code": code_sha256(*_TORCH_CODE, "models/onnx_export.py", "models/data.py"),
        "versions": library_versions("torch", "onnx"),
    }
    made = cache.product("onnx-script", key, Exported, build)
    model = "model.onnx"
    return made.folder / model, made.files[model].sha256, made.record.parameters, None


def _own_samples(spec: RunSpec) -> Path | None:
    """The user's file that says best what the inputs are."""
    named = spec.inputs or spec.dataset or spec.calibration
    return Path(named) if named else None


class _TorchStructure(msgspec.Struct, frozen=True, kw_only=True):
    """`harness.models.torch_build.TorchStructure`, as read without importing torch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Maybe[int]
    size_bytes: dict[str, int]
    sha256: str
    examples: bool


def _torch(spec: RunSpec, source: Source, cache: Cache) -> Fp32:
    recipe = ZOO[source.name] if source.kind == "zoo" else None
    inputs = zoo_inputs(source.name, spec) if recipe else None
    outputs = _outputs(recipe.outputs, _fixed(recipe, spec), inputs) if recipe and inputs else None

    samples = _own_samples(spec) if source.kind == "torchscript" else None

    def build(folder: Path) -> _TorchStructure:
        from harness.models.torch_build import describe

        shapes, batch = spec.input_shapes, spec.batch_size
        found = describe(_name(source), spec.seed, inputs, outputs, shapes, batch, folder, samples)
        return convert(msgspec.to_builtins(found), _TorchStructure)

    if source.kind == "factory":
        made = cache.by_content("torch-factory", _TorchStructure, build, source.name)
    else:
        key = {
            "source": _source_sha256(spec, source, ""),
            "seed": spec.seed,
            "shapes": spec.input_shapes,
            "batch": spec.batch_size,
            "samples": sha256_of([samples]) if samples else "",
            "code": code_sha256(*_TORCH_CODE, "models/shapes.py"),
            "versions": library_versions("torch"),
        }
        made = cache.product("torch-structure", key, _TorchStructure, build)
    found = made.record
    examples = "examples.npz" if found.examples else None
    artifact = Artifact(
        format="torch",
        path=source.path or (str(ASSETS / "digits.npz") if source.name == "digits" else ""),
        source=_name(source),
        precision="fp32",
        sha256=found.sha256,
        size_bytes=found.size_bytes["fp32"],
        inputs=found.inputs,
        outputs=found.outputs,
        seed=spec.seed,
    )
    return Fp32(
        artifact=artifact,
        sha256=_source_sha256(spec, source, found.sha256),
        parameters=found.parameters,
        ranges=_zoo_ranges(recipe) if recipe else {},
        size_bytes=found.size_bytes,
        examples=str(made.folder / examples) if examples else None,
        examples_sha256=made.files[examples].sha256 if examples else "",
    )


def _name(source: Source) -> str:
    """An artifact's ``source``: what `harness.artifacts.torch_source.load_module` takes."""
    return f"{source.kind}:{source.path or source.name}"


def _source_sha256(spec: RunSpec, source: Source, content: str) -> str:
    """What makes two runs' models the same model, whatever the format."""
    if source.kind in ("pt2", "torchscript"):
        return sha256_of([Path(source.path)])
    if source.kind != "zoo":
        return content
    if source.name == "digits":
        return manifest().sha256["digits.npz"]
    recipe = [source.name, str(spec.seed), code_sha256("zoo/*.py")]
    return hashlib.sha256(" ".join(recipe).encode()).hexdigest()


def zoo_inputs(name: str, spec: RunSpec) -> tuple[TensorSpec, ...]:
    """A zoo model's inputs, its free sizes by ``--input-shape`` or by default."""
    return resolve_shapes(_fixed(ZOO[name], spec), spec.input_shapes, spec.batch_size)


def _fixed(recipe: Recipe, spec: RunSpec) -> tuple[Declared, ...]:
    """The inputs with every size but the batch settled. Raises `ModelError` beyond a limit."""
    sizes = dict(recipe.defaults)
    for declared in recipe.inputs:
        given = spec.input_shapes.get(declared.name, ())
        for dim, size in zip(declared.dims or (), given, strict=False):
            if isinstance(dim, str) and dim in sizes:
                sizes[dim] = size
    for dim, limit in recipe.limits.items():
        if sizes[dim] > limit:
            raise ModelError(f"the {dim} length is {sizes[dim]}", f"it can be {limit} at most")
    return tuple(
        Declared(name=d.name, dtype=d.dtype, dims=tuple(_size(dim, sizes) for dim in d.dims or ()))
        for d in recipe.inputs
    )


def _size(dim: int | str | None, sizes: Mapping[str, int]) -> int | str | None:
    return sizes.get(dim, dim) if isinstance(dim, str) else dim


def _zoo_ranges(recipe: Recipe) -> Ranges:
    return {name: (0, limit) for name, limit in recipe.index_limits.items()}
