"""Where worker, driver and sampler run: threads, processors, environment. Decided beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from harness import registry
from harness.engine.driver.homes import Home
from harness.engine.driver.process import WorkerProcess
from harness.engine.outcome.evidence import Placement
from harness.engine.wire.timeline import capacity_for
from harness.errors import UsageError
from harness.machine import physical_cores, usable_cpus
from harness.spec import RunSpec

# Read by the libraries when they are loaded, hence set before the worker starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _environment(placement: Placement) -> dict[str, str]:
    """What is set in the worker beside the user's own variables."""
    return dict.fromkeys(THREAD_VARIABLES, str(placement.threads))


def place(spec: RunSpec) -> Placement:
    """Decide. Raises `UsageError` for processors that this process may not use."""
    allowed = usable_cpus()
    if spec.cpus is not None and not set(spec.cpus) <= set(allowed):
        wrong = ",".join(str(cpu) for cpu in spec.cpus if cpu not in allowed)
        given = ",".join(map(str, allowed))
        raise UsageError(f"--cpus names {wrong}", f"this process may use {given}")
    mine = spec.cpus if spec.cpus is not None else allowed
    cores = min(len(mine), physical_cores()) if spec.cpus is None else len(mine)
    threads = spec.threads or max(1, cores // spec.concurrency)
    rest = tuple(cpu for cpu in allowed if spec.cpus is not None and cpu not in spec.cpus)
    return Placement(threads, spec.cpus, rest or None, len(mine))


def boot(worker: WorkerProcess, spec: RunSpec, placement: Placement) -> None:
    """Have ``worker`` import the runtime where and how ``placement`` says."""
    environment = _environment(placement)
    if spec.device != "cpu":
        from harness.host.gpus import ORDER, device_order  # 7 ms that a CPU does without

        # All of Harness's processes must mean the same device by cuda:N.
        environment[ORDER] = device_order()
    worker.boot(
        spec.backend,
        spec.device,
        environment,
        streams=spec.concurrency,
        cpus=placement.cpus,
        capacity=capacity_for(spec.concurrency),
        columns=registry.load(spec.scenario).columns,
    )


def booted(spec: RunSpec, placement: Placement, home: Home | None = None) -> WorkerProcess:
    """A fresh worker, importing its runtime in ``home``."""
    worker = WorkerProcess(home)
    boot(worker, spec, placement)
    return worker


@contextmanager
def stand_aside(placement: Placement) -> Iterator[None]:
    """Keep this process off the worker's processors for a while, where the user named those."""
    if placement.rest is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, placement.rest)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
