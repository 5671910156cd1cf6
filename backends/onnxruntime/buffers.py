"""A model's inputs and outputs in the memory of a CUDA device, bound once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from harness.backends.onnxruntime.module import bindable, fits, optionals

DEVICE = "cuda"  # as `OrtValue` names it


class Buffers:
    """Inputs and outputs of one session in device memory, bound."""

    def __init__(self, session: Any, inputs: Mapping[str, Any], index: int) -> None:
        import onnxruntime as ort

        self.index = index
        self.native = session.io_binding()
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.changing: list[str] = []  # what cannot stay bound
        self._declared = bindable(session)
        self.optionals = optionals(session)
        self.types = {name: output.type for name, output in self._declared.items()}
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, DEVICE, index
            )
            self.native.bind_ortvalue_input(name, value)
            self.inputs[name] = value
        self.replace(inputs)
        self.release_outputs()

    def replace(self, inputs: Mapping[str, Any]) -> None:
        import numpy as np

        for name, array in inputs.items():
            self.inputs[name].update_inplace(np.asarray(array, order="C"))

    def release_outputs(self) -> None:
        """Have the next run allocate the outputs. What is no tensor can only lie on the host."""
        self.outputs.clear()
        for name in self._declared:
            self._release(name)

    def _release(self, name: str) -> None:
        if self._declared[name].type.startswith("tensor("):
            self.native.bind_output(name, DEVICE, self.index)
        else:
            self.native.bind_output(name, "cpu")

    def keep_outputs(self, varying: Collection[str]) -> None:
        """Bind the outputs of the run before where they are: their addresses stay the same."""
        self.changing = []
        for name, value in zip(self._declared, self.native.get_outputs(), strict=True):
            if name in varying or not fits(self._declared[name], value):
                self.changing.append(name)
            else:
                self.outputs[name] = value
                self.native.bind_ortvalue_output(name, value)

    def anew(self, run: Callable[[], None]) -> Callable[[], None]:
        """``run``, with what cannot stay bound allocated anew."""
        if not self.changing:
            return run
        unfit = [partial(self._release, name) for name in self.changing]

        def run_anew() -> None:
            for release in unfit:
                release()
            run()

        return run_anew

    def values(self) -> dict[str, Any]:
        """The last inference's outputs, wherever they lie."""
        if not self.changing:
            return self.outputs
        return dict(zip(self._declared, self.native.get_outputs(), strict=True))

    @staticmethod
    def options(*, graph: bool, wait: bool) -> Any:
        """Of one run: whether it may be captured or replayed, and whether it waits for itself."""
        import onnxruntime as ort

        made = ort.RunOptions()
        # 0 is the number of a run that names none, which takes the runtime longer to find out
        made.add_run_config_entry("gpu_graph_id", "0" if graph else "-1")
        made.add_run_config_entry("disable_synchronize_execution_providers", "0" if wait else "1")
        return made
