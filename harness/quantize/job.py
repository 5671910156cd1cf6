"""QuantizeJob: what a quantizer is asked to do. Plain data, so that it crosses a process border."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.spec import CalibrationMethod, QuantizationMode

CalibrationSource = Literal["file", "model split", "drawn inputs"]


class QuantizeJob(msgspec.Struct, frozen=True, kw_only=True):
    """How to bring one FP32 model to ``precision``.

    ``calibration_path`` is an .npz of arrays by input name with samples along axis 0, as many in
    each (``calibration_samples``), checked against the model's inputs beforehand: right dtypes,
    right shapes beyond axis 0, finite. An input whose axis 0 is no batch still has samples along a
    leading axis: its array has one more dimension than the input. ``batch_size`` is the size of
    axis 0 that the model is run at; slice the samples by it and let the last slice wrap around.
    """

    precision: Literal["int8", "fp16", "bf16"]
    mode: QuantizationMode = "static"
    method: CalibrationMethod = "minmax"
    calibration_path: str
    calibration_source: CalibrationSource
    calibration_sha256: str
    calibration_samples: int
    batch_size: int = 1
    seed: int = 0
    libraries: tuple[str, ...] = ()  # of custom operators that the model needs
