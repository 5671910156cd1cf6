"""The driver's front door. Imports nothing itself, so that the worker starts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.engine.driver.conductor import Outcome
    from harness.engine.driver.sinks import Sink
    from harness.spec import RunSpec


def run(spec: RunSpec, sinks: Callable[[Path], Sequence[Sink]] = lambda folder: ()) -> Outcome:
    """Measure ``spec`` and write the result into a new folder under ``spec.out``.

    ``sinks`` is asked for those that follow the run, given that folder.

    A worker that fails still leaves a result, with status ``failed``. Raises a `HarnessError` for
    what is wrong before anything can be measured. What cannot be written is told by the outcome.
    """
    from harness import registry
    from harness.engine.driver.placement import boot, place
    from harness.engine.driver.process import WorkerProcess
    from harness.engine.driver.signals import Interrupt, interruptible

    registry.load(spec.scenario).refuse(spec)
    interrupt = Interrupt()
    with interruptible(interrupt), WorkerProcess() as first:
        placement = place(spec)
        boot(first, spec, placement)
        # numpy and all that needs it come in while the worker imports its runtime
        from harness.engine.driver.conductor import Conductor

        conductor = Conductor(spec, sinks, placement, interrupt)
        try:
            return conductor.execute(first)
        except BaseException as error:
            if not conductor.discard():
                error.add_note(f"what was measured: harness recover {conductor.folder.path}")
            raise
