"""What the PyTorch adapter can be asked for, decided without loading PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.backends.common import chosen_options
from harness.protocols import Option, SessionOptions

OPTIONS = (
    Option("compile", ("off", "inductor"), "off", "by torch.compile"),
    Option("channels_last", ("auto", "on", "off"), "auto", "layout of images; auto: on a CPU"),
    Option("cuda_graph", ("off", "on"), "off", "capture once, replay from then on", "cuda"),
    Option("tf32", ("off", "on"), "off", "round FP32 products to TF32", "cuda"),
)
# What a CPU must say of itself to compute in this type. Without it PyTorch still gives numbers,
# from reference loops: ResNet-18 in fp16 took 42 times its fp32 time on a CPU without avx512_fp16.
ARITHMETIC: Mapping[str, frozenset[str]] = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "asimdhp"}),
}
PRECISIONS = ("fp32", "int8", *ARITHMETIC)


def settings(options: SessionOptions) -> dict[str, str]:
    """Every option with its value in force. Raises `UsageError` naming the valid ones."""
    return chosen_options("pytorch", options, OPTIONS)


def cpu_features() -> frozenset[str]:
    """The instruction sets that the kernel names; empty where it names none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def runnable(device: str) -> list[str]:
    """The precisions that ``device`` really computes in."""
    if device != "cpu":
        return list(PRECISIONS)
    features = cpu_features()
    return [p for p in PRECISIONS if p not in ARITHMETIC or ARITHMETIC[p] & features]
