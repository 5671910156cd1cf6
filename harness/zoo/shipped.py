"""What ships for `digits`, read without any framework."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.errors import ModelError
from harness.protocols import Declared

ASSETS = Path(__file__).parent / "assets"
FILES = ("digits.npz", "digits.onnx", "digits_calibration.npz", "digits_test.npz")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``assets/manifest.json``. ``test_accuracy`` is torch's, on the test split, from 0 to 1."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    parameters: int
    test_accuracy: float
    test_samples: int
    calibration_samples: int
    sha256: dict[str, str]


def manifest() -> Manifest:
    """The shipped manifest. Raises `ModelError` where the installation lost it."""
    try:
        return msgspec.json.decode((ASSETS / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(
            f"the files of digits are damaged: {error}", "reinstall harness"
        ) from error
