"""A loaded engine: taken from the cache where it fits, else built; and what is known of it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.tensorrt.build import Request, build, deserialize, open_runtime
from harness.backends.tensorrt.cache import (
    EngineCache,
    EngineKey,
    EngineRecord,
    Platform,
    Rejected,
    external_files,
)
from harness.backends.tensorrt.cuda import Cuda
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt.options import Settings, settings
from harness.errors import MeasurementFailed, ModelError
from harness.host.digest import sha256_of
from harness.host.gpus import CudaDevice
from harness.host.procfs import read_text
from harness.protocols import Artifact, SessionOptions

if TYPE_CHECKING:
    from harness.backends.tensorrt.io import Tensors
    from harness.protocols import Arrays

_BUILDING = ("optimization_level", "tf32", "timing_cache", "workspace_mib", "batch_profile")
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


class Loaded:
    """One engine and how it came about; lives as long as a session holds it."""

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        device: CudaDevice,
        artifact: Artifact,
        inputs: Arrays,
        options: SessionOptions,
    ) -> None:
        path = Path(artifact.path)
        if not path.is_file():
            raise ModelError(f"no such model file: {path}", "check the path")
        self.trt = trt
        self.cuda = cuda
        self.log = log_of(trt)
        self.settings: Settings = settings(options)
        cuda.use()
        self._runtime = open_runtime(trt, self.log)
        where = platform(trt, device)
        cache = EngineCache(_key(where, artifact, path, inputs, self.settings))
        self.engine, record, note = self._obtain(cache, path, inputs)
        self.facts = {
            "version": where.tensorrt,
            "onnx_parser": str(trt.get_nv_onnx_parser_version()),
            "device": f"{device.name}, compute capability {device.compute_capability}",
            "device_uuid": device.uuid,
            "driver": where.driver,
            "typing": "strong: the types of the ONNX graph",
            "boundary": options.boundary,
            "engine": note,
            "engine_build_s": f"{record.build_s:.6g}",
            "engine_built_at": record.built_at,
            "engine_bytes": str(record.plan_bytes),
            "engine_sha256": record.plan_sha256,
            "activation_bytes": str(self.activation_bytes),
            "auxiliary_streams": str(self.engine.num_aux_streams),
            "layer_count": str(self.engine.num_layers),
            **_described(self.settings),
        }

    def _obtain(
        self, cache: EngineCache, path: Path, inputs: Arrays
    ) -> tuple[Any, EngineRecord, str]:
        """The engine, its record, and in words where it came from."""
        if not self.settings.engine_cache:
            engine, record, _ = self._build(cache, path, inputs)
            return engine, record, "built, engine_cache=off"
        found = cache.load()
        why = ""
        if isinstance(found, Rejected):
            why = found.reason
        elif found is not None:
            plan, record = found
            try:
                return deserialize(self._runtime, self.log, plan), record, "from the cache"
            except MeasurementFailed as error:
                if error.remedy:  # the device is at fault, out of memory above all, not the engine
                    raise
                why = error.message
                cache.discard()
        engine, record, plan = self._build(cache, path, inputs)
        unkept = cache.store(plan, record.build_s, record.built_at)
        note = f"rebuilt, the cached one was not used: {why}" if why else "built"
        return engine, record, f"{note}; {unkept}" if unkept else note

    def _build(
        self, cache: EngineCache, path: Path, inputs: Arrays
    ) -> tuple[Any, EngineRecord, bytes]:
        """A new engine, which need not be kept."""
        timing = cache.timing() if self.settings.timing_cache else b""
        request = Request(path=str(path), settings=self.settings, timing=timing)
        began = time.perf_counter()
        built = build(self.trt, self.log, request, inputs)
        build_s = time.perf_counter() - began
        if built.timing:
            cache.store_timing(built.timing)
        record = EngineRecord(
            key=cache.key,
            plan_sha256=hashlib.sha256(built.plan).hexdigest(),
            plan_bytes=len(built.plan),
            build_s=build_s,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return deserialize(self._runtime, self.log, built.plan), record, built.plan

    @property
    def activation_bytes(self) -> int:
        """Device memory that each context takes for what lies between layers."""
        if hasattr(self.engine, "device_memory_size_v2"):  # since 10.1; 11 has no other
            return int(self.engine.device_memory_size_v2)
        return int(self.engine.device_memory_size)

    def context(self) -> Any:
        """A new execution context. Raises `MeasurementFailed`, for lack of memory above all."""
        what = "TensorRT cannot make an execution context"
        with self.log.mapped(what, MeasurementFailed):
            made = self.engine.create_execution_context()
            if made is None:
                raise self.log.failure(what, MeasurementFailed)
            # The detail that the inspector needs would be told to NVTX too, at each inference.
            made.nvtx_verbosity = self.trt.ProfilingVerbosity.NONE
            return made

    def tensors(self, stream: Any, transfer: bool, owner: ExitStack) -> Tensors:
        """The tensors of a new session."""
        from harness.backends.tensorrt.io import Tensors  # and numpy, which the driver can spare

        return Tensors(self.trt, self.engine, self.cuda, stream, transfer, owner)


def _described(chosen: Settings) -> dict[str, str]:
    """The options in force, as they are given on the command line."""
    low_high = chosen.batch_profile
    return {
        "optimization_level": str(chosen.optimization_level),
        "tf32": "on" if chosen.tf32 else "off",
        "timing_cache": "on" if chosen.timing_cache else "off",
        "workspace_mib": "all" if chosen.workspace_mib is None else str(chosen.workspace_mib),
        "batch_profile": "the batch alone" if low_high is None else f"{low_high[0]}-{low_high[1]}",
    }


def _key(
    where: Platform, artifact: Artifact, path: Path, inputs: Arrays, chosen: Settings
) -> EngineKey:
    values = hashlib.sha256()
    for _, array in sorted(inputs.items()):
        # An input that decides shapes holds a few integers; no other influences the engine.
        if array.dtype.kind in "iu" and array.ndim <= 1:
            values.update(array.tobytes())
    told = {name: text for name, text in _described(chosen).items() if name in _BUILDING}
    return EngineKey(
        platform=where,
        model_sha256=artifact.sha256 or sha256_of([path]),
        external_data=external_files(path, artifact.size_bytes),
        inputs={name: (str(array.dtype), array.shape) for name, array in sorted(inputs.items())},
        shape_values_sha256=values.hexdigest(),
        options=told | {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )
