"""Where a model comes from, its inputs and its data. Importing this loads no framework."""

from harness.models.prepare import model_names, prepare
from harness.models.prepared import Prepared

__all__ = ["Prepared", "model_names", "prepare"]
