"""What TensorRT for RTX compiles for the GPU at hand when an engine is loaded.

An engine that was built ahead of time has no kernels yet: they are compiled when its context is
made, and those for a shape when it is first run. A runtime cache keeps them from one process to
the next. ``specialization=eager`` has all of it done before the first inference returns; with
``lazy`` a thread of the library's compiles on, beside what is timed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from harness.backends.tensorrt.cache import Platform, read_file
from harness.backends.tensorrt.log import Log
from harness.backends.tensorrt.options import Settings
from harness.errors import MeasurementFailed, ResultError
from harness.host.cache_root import default_root
from harness.host.files import write_atomically

_LIMIT_BYTES = 1 << 30
_DIGEST_BYTES = 32


class Kernels:
    """``config`` is the runtime configuration that contexts are made with."""

    def __init__(
        self,
        trt: Any,
        log: Log,
        engine: Any,
        where: Platform,
        settings: Settings,
        engine_sha256: str,
    ) -> None:
        key = [msgspec.to_builtins(where), engine_sha256]
        name = hashlib.sha256(msgspec.json.encode(key)).hexdigest()
        self._path = default_root() / "tensorrt-rtx" / f"{name}.kernels"
        self._kept = b""
        self.note = "runtime_cache=off"
        with log.mapped(f"{log.title} refused the runtime's configuration", MeasurementFailed):
            self.config = engine.create_runtime_config()
            kind = trt.DynamicShapesKernelSpecializationStrategy
            chosen = kind.__members__[str(settings.specialization).upper()]
            self.config.dynamic_shapes_kernel_specialization_strategy = chosen
            # graphs are captured by the session, if at all
            self.config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            self._cache = self._open() if settings.runtime_cache else None

    def _open(self) -> Any:
        cache = self.config.create_runtime_cache()
        self._kept = self._read()
        self.note = "compiled anew"
        if self._kept and not cache.deserialize(self._kept):
            self.note = "compiled anew, the runtime refused what was kept"
        elif self._kept:
            self.note = "from the runtime cache"
        self.config.set_runtime_cache(cache)
        return cache

    def _read(self) -> bytes:
        try:
            data = read_file(self._path, _LIMIT_BYTES) or b""
        except OSError:
            return b""  # what cannot be read is compiled anew
        digest, kernels = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return kernels if hashlib.sha256(kernels).digest() == digest else b""

    def keep(self) -> None:
        """Keep what was compiled, if it is more than was kept already."""
        if self._cache is None:
            return
        compiled = self._cache.serialize()
        data = b"" if compiled is None else bytes(compiled)
        if not data or data == self._kept:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, hashlib.sha256(data).digest() + data)
            self._kept = data
        except (OSError, ResultError) as error:
            self.note += f"; not kept: {error}"
