"""What the kernels of this processor depend on: a product proven on one is not proven on others."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

# each caps the instructions that a library may use, whatever the processor has
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def processor() -> dict[str, str]:
    """Architecture, instruction sets and limits set by the user; the key of what is made here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    features = " ".join(sorted(flags.group(1).split())) if flags else platform.processor()
    limits = {name: os.environ[name] for name in LIMITS if os.environ.get(name)}
    return {"machine": platform.machine(), "features": features, **limits}
