"""The options of the pytest plug-in, which its hooks declare and its fixture reads."""

from __future__ import annotations

# field of a run -> what its option says
OPTIONS = {
    "backend": "Runtime of tests that name none: onnxruntime, pytorch, tensorrt, a plug-in.",
    "device": "Device of tests that name none: cpu, cuda or cuda:N.",
    "precision": "Precision of tests that name none: fp32, int8, fp16 or bf16.",
    "launches": "Fresh worker processes per measurement; a comparison needs five.",
    "duration_s": "Seconds of the timed window.",
    "out": "Folder for the results. Default: results.",
}
EARLIER = {"results": "out"}  # names that go on working


def option_name(field: str) -> str:
    """``duration`` of ``duration_s``: an option is ``--hwbench-`` and it, an ini ``hwbench_``."""
    return "results" if field == "out" else field.removesuffix("_s")
