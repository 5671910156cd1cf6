"""Compression Board: models at several precisions side by side, in TensorBoard and in reports.

Importing this loads nothing else; the names below load their module when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.tensorboard.importer import log_benchmark_results
    from harness.tensorboard.writer import CompressionWriter

__all__ = ["CompressionWriter", "log_benchmark_results"]


def __getattr__(name: str) -> Any:
    if name == "CompressionWriter":
        from harness.tensorboard.writer import CompressionWriter

        return CompressionWriter
    if name == "log_benchmark_results":
        from harness.tensorboard.importer import log_benchmark_results

        return log_benchmark_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
