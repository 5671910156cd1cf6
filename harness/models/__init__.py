"""Where a model comes from, its inputs and its data. Importing this loads no framework."""

from harness.models.prepare import Prepared, model_names, prepare

__all__ = ["Prepared", "model_names", "prepare"]
