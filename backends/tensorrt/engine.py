"""A loaded engine: taken from the cache where it fits, else built; and what is known of it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.backends.cuda import Cuda
from harness.backends.tensorrt.build import Request, build, deserialize, open_runtime
from harness.backends.tensorrt.cache import (
    EngineCache,
    EngineKey,
    EngineRecord,
    Platform,
    Rejected,
    external_files,
)
from harness.backends.tensorrt.kernels import Kernels
from harness.backends.tensorrt.library import Library
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt.options import Settings, described
from harness.errors import MeasurementFailed, ModelError
from harness.host.digest import sha256_of
from harness.host.gpus import CudaDevice
from harness.host.procfs import read_text
from harness.protocols import Artifact, SessionOptions

if TYPE_CHECKING:
    from harness.backends.tensorrt.io import Tensors
    from harness.protocols import Arrays

_BUILDING = (
    "optimization_level", "tf32", "timing_cache", "workspace_mib", "batch_profile", "targets",
)  # fmt: skip
_VARIABLES = ("NVIDIA_TF32_OVERRIDE",)  # of the environment, that decide what is built


def platform(trt: Any, device: CudaDevice) -> Platform:
    """What an engine of this TensorRT on this device is bound to."""
    version = read_text("/", "proc/driver/nvidia/version") or ""
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", version)
    return Platform(
        gpu=device.name,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        driver=f"{found[0] if found else 'unknown'} (CUDA {device.driver_cuda})",
        tensorrt=str(trt.__version__),
    )


def anywhere(trt: Any) -> Platform:
    """What an engine is bound to that is built for no GPU in particular."""
    return Platform(
        gpu="any",
        compute_capability="as its targets say",
        multiprocessors=0,
        driver="any",
        tensorrt=str(trt.__version__),
    )


class Making:
    """How the engine of one model is come by: from the cache where it fits, else built."""

    def __init__(
        self,
        trt: Any,
        library: Library,
        where: Platform,
        artifact: Artifact,
        inputs: Arrays,
        options: SessionOptions,
    ) -> None:
        path = Path(artifact.path)
        if not path.is_file():
            raise ModelError(f"no such model file: {path}", "check the path")
        self._trt, self._path, self._inputs = trt, path, inputs
        self._log = log_of(trt, library.title)
        self._settings = library.settings(options)
        key = _key(where, artifact, path, inputs, self._settings)
        self._cache = EngineCache(key, kind=library.backend)

    def plan(self, fits: Callable[[bytes], None] = lambda plan: None) -> Made:
        """The engine, kept for the next time. ``fits`` raises `MeasurementFailed` for one that
        is of no use here, without a remedy where the engine and not the device is at fault."""
        if not self._settings.engine_cache:
            return self._build("built, engine_cache=off", fits)
        kept = self._cache.load()
        why = ""
        if isinstance(kept, Rejected):
            why = kept.reason
        elif kept is not None:
            try:
                fits(kept[0])
                return Made(*kept, "from the cache")
            except MeasurementFailed as error:
                if error.remedy:  # the device is at fault, out of memory above all, not the engine
                    raise
                why = error.message
                self._cache.discard()
        made = self._build("built", fits)
        record = made.record
        unkept = self._cache.store(made.plan, record.build_s, record.built_at, record.layers)
        note = f"rebuilt, the cached one was not used: {why}" if why else made.note
        return made._replace(note=f"{note}; {unkept}" if unkept else note)

    def _build(self, note: str, fits: Callable[[bytes], None]) -> Made:
        """A new engine, which need not be kept."""
        timing = self._cache.timing() if self._settings.timing_cache else b""
        request = Request(path=str(self._path), settings=self._settings, timing=timing)
        began = time.perf_counter()
        built = build(self._trt, self._log, request, self._inputs)
        build_s = time.perf_counter() - began
        if built.timing:
            self._cache.store_timing(built.timing)
        record = EngineRecord(
            key=self._cache.key,
            plan_sha256=hashlib.sha256(built.plan).hexdigest(),
            plan_bytes=len(built.plan),
            build_s=build_s,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            layers=built.layers,
        )
        fits(built.plan)
        return Made(built.plan, record, note)


class Made(NamedTuple):
    """A serialized engine, its record, and in words where it came from."""

    plan: bytes
    record: EngineRecord
    note: str

    @property
    def facts(self) -> dict[str, str]:
        """What is worth telling of it."""
        layers = self.record.layers
        return {
            **({} if layers is None else {"network_layers": str(layers)}),
            "engine": self.note,
            "engine_build_s": f"{self.record.build_s:.6g}",
            "engine_built_at": self.record.built_at,
            "engine_bytes": str(self.record.plan_bytes),
            "engine_sha256": self.record.plan_sha256,
        }


class Loaded:
    """One engine, ready to run, and how it came about; lives as long as a session holds it."""

    def __init__(
        self,
        trt: Any,
        library: Library,
        cuda: Cuda,
        device: CudaDevice,
        artifact: Artifact,
        inputs: Arrays,
        options: SessionOptions,
    ) -> None:
        self.trt = trt
        self.cuda = cuda
        self.log = log_of(trt, library.title)
        self.settings: Settings = library.settings(options)
        cuda.use()
        self._runtime = open_runtime(trt, self.log)
        where = platform(trt, device)
        self.engine: Any = None
        if artifact.format == library.engine_format:
            plan = _read(artifact)
            self._take(plan)
            sha256 = hashlib.sha256(plan).hexdigest()
            made_facts = artifact.facts | {"engine_bytes": str(len(plan)), "engine_sha256": sha256}
        else:
            made = Making(trt, library, where, artifact, inputs, options).plan(self._take)
            made_facts = made.facts
        self._compiler: Kernels | None = None
        if self.settings.specialization is not None:
            sha256 = made_facts["engine_sha256"]
            self._compiler = Kernels(trt, self.log, self.engine, where, self.settings, sha256)
        self.facts = {
            "version": where.tensorrt,
            "onnx_parser": str(trt.get_nv_onnx_parser_version()),
            "device": f"{device.name}, compute capability {device.compute_capability}",
            "device_uuid": device.uuid,
            "driver": where.driver,
            "typing": "strong: the types of the ONNX graph",
            "boundary": options.boundary,
            **made_facts,
            "activation_bytes": str(self.activation_bytes),
            "auxiliary_streams": str(self.engine.num_aux_streams),
            "layer_count": str(self.engine.num_layers),
            **described(self.settings),
        }

    def _take(self, plan: bytes) -> None:
        self.engine = deserialize(self._runtime, self.log, plan)

    @property
    def activation_bytes(self) -> int:
        """Device memory that each context takes for what lies between layers."""
        if hasattr(self.engine, "device_memory_size_v2"):  # since 10.1; 11 has no other
            return int(self.engine.device_memory_size_v2)
        return int(self.engine.device_memory_size)

    @property
    def compiles(self) -> bool:
        """Whether making a context compiles kernels for the device."""
        return self._compiler is not None

    def context(self) -> Any:
        """A new execution context. Raises `MeasurementFailed`, for lack of memory above all."""
        what = f"{self.log.title} cannot make an execution context"
        with self.log.mapped(what, MeasurementFailed):
            if self._compiler is None:
                made = self.engine.create_execution_context()
            else:
                made = self.engine.create_execution_context(self._compiler.config)
            if made is None:
                raise self.log.failure(what, MeasurementFailed)
            # The detail that the inspector needs would be told to NVTX too, at each inference.
            made.nvtx_verbosity = self.trt.ProfilingVerbosity.NONE
            return made

    def compiled(self) -> dict[str, str]:
        """How the kernels came about, where they are compiled at load; they are kept from now."""
        if self._compiler is None:
            return {}
        self._compiler.keep()
        return {
            "kernels": self._compiler.note,
            "specialization": str(self.settings.specialization),
        }

    def tensors(self, stream: Any, transfer: bool, owner: ExitStack) -> Tensors:
        """The tensors of a new session."""
        from harness.backends.tensorrt.io import Tensors  # and numpy, which the driver can spare

        return Tensors(self.trt, self.engine, self.cuda, stream, transfer, owner)


def _read(artifact: Artifact) -> bytes:
    """The plan that an artifact is. Raises `ModelError` where it is not what was made."""
    try:
        plan = Path(artifact.path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"no such engine: {artifact.path} ({error.strerror})", "build it anew"
        ) from error
    if artifact.sha256 and hashlib.sha256(plan).hexdigest() != artifact.sha256:
        raise ModelError(f"{artifact.path} was changed since it was built", "build it anew")
    return plan


def _key(
    where: Platform, artifact: Artifact, path: Path, inputs: Arrays, chosen: Settings
) -> EngineKey:
    values = hashlib.sha256()
    for _, array in sorted(inputs.items()):
        # An input that decides shapes holds a few integers; no other influences the engine.
        if array.dtype.kind in "iu" and array.ndim <= 1:
            values.update(array.tobytes())
    told = {name: text for name, text in described(chosen).items() if name in _BUILDING}
    return EngineKey(
        platform=where,
        model_sha256=artifact.sha256 or sha256_of([path]),
        external_data=external_files(path, artifact.size_bytes),
        inputs={name: (str(array.dtype), array.shape) for name, array in sorted(inputs.items())},
        shape_values_sha256=values.hexdigest(),
        options=told | {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )
