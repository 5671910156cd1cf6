"""All that a run gathered, for `harness.engine.outcome.assemble` to turn into a Result."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.engine.driver.journal import Installed
from harness.engine.driver.placement import Placement
from harness.engine.driver.watch import LaunchRecord
from harness.engine.sampler.client import SamplerProcess
from harness.models import Prepared
from harness.records.result import Machine
from harness.spec import RunSpec


@dataclass
class Evidence:
    """Grows as the run goes; ``launches`` and ``samplers`` go together."""

    spec: RunSpec
    id: str
    started_at: str
    began_ns: int
    placement: Placement
    ended_ns: int | None = None  # of a run that is over; None: now
    machine: Machine | None = None
    installed: Installed | None = None
    prepared: Prepared | None = None
    launches: list[LaunchRecord] = field(default_factory=list)
    samplers: list[SamplerProcess | None] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    unsaved: int = 0  # iterations that no file holds
