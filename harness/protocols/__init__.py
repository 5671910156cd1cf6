"""What plugs into Harness: backends and profilers, and the values that cross those borders.

The states of a session, as the worker drives it (one session per stream; one thread per stream, or
one thread for all where the sessions are `Asynchronous`):

    prepare() ─> [bound] ─enqueue()─> [in flight] ─synchronize()─> [ready] ─outputs()─> [ready]
                  │   ↑                                              │
                  └bind() <──────────────────────────────────────────┘      close() from any state

Only ``enqueue`` and ``synchronize`` run between two clock reads. Everything else is outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.maybe import Maybe, Unavailable
from harness.protocols.artifacts import (
    Artifact,
    Available,
    Declared,
    Dim,
    Precision,
    Proof,
    Quantization,
    QuantizationCost,
    TensorSpec,
    Wanted,
)
from harness.protocols.backends import (
    NO_LAYERS,
    NO_THREADS,
    ArtifactMaker,
    Asynchronous,
    Backend,
    Compiler,
    CompilesAtLoad,
    Description,
    DeviceMemory,
    DeviceTimed,
    Layer,
    Layers,
    Node,
    Option,
    Session,
    SessionOptions,
    Unseen,
)
from harness.protocols.operators import (
    Idled,
    IdleLoad,
    OperatorProfiled,
    OperatorTimes,
    ProfiledInferences,
    RoofCall,
    Roofed,
    RoofLoad,
    Step,
)
from harness.protocols.profilers import (
    Channel,
    PhaseProbe,
    Profiler,
    ProfilerContext,
    Progress,
    SensorFacts,
)

if TYPE_CHECKING:
    from harness.protocols.backends import Arrays as Arrays

__all__ = [
    "NO_LAYERS",
    "NO_THREADS",
    "Artifact",
    "ArtifactMaker",
    "Asynchronous",
    "Available",
    "Backend",
    "Channel",
    "Compiler",
    "CompilesAtLoad",
    "Declared",
    "Description",
    "DeviceMemory",
    "DeviceTimed",
    "Dim",
    "IdleLoad",
    "Idled",
    "Layer",
    "Layers",
    "Maybe",
    "Node",
    "OperatorProfiled",
    "OperatorTimes",
    "Option",
    "PhaseProbe",
    "Precision",
    "ProfiledInferences",
    "Profiler",
    "ProfilerContext",
    "Progress",
    "Proof",
    "Quantization",
    "QuantizationCost",
    "RoofCall",
    "RoofLoad",
    "Roofed",
    "SensorFacts",
    "Session",
    "SessionOptions",
    "Step",
    "TensorSpec",
    "Unavailable",
    "Unseen",
    "Wanted",
]
