"""What preparing a model leaves: files that a worker can load, and what is known of them."""

from __future__ import annotations

import msgspec

from harness.protocols import Artifact
from harness.records.result import ModelInfo


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs. ``reference`` is the FP32 artifact to hold a reduced one against.

    ``inputs_path`` is an .npz of the bound inputs by name, at the batch size. ``evaluation_path``
    is an .npz of samples by input name along axis 0, and ``labels`` where an accuracy is claimed;
    None where all that is known are the bound inputs. An input without the batch as its axis 0 has
    one dimension more there (one sample a run). ``drawn`` bounds integer inputs (low, high
    exclusive) where inputs are drawn, so that more of them may be; None where the model brings its
    own or there are samples.
    """

    model: ModelInfo
    artifact: Artifact
    reference: Artifact | None
    inputs_path: str
    evaluation_path: str | None
    evaluation_name: str
    evaluation_sha256: str
    drawn: dict[str, tuple[int, int]] | None = None
