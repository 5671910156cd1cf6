"""Watch a model while it trains: curves, alerts and checkpoints, beside its benchmark.

Importing this loads neither torch nor TensorBoard; torch objects are understood where they come.
"""

from harness.training.alerts import RULES, Alert, TrainingAlert
from harness.training.checkpoints import Checkpoint, CheckpointManager
from harness.training.logger import TrainingLogger

__all__ = ["RULES", "Alert", "Checkpoint", "CheckpointManager", "TrainingAlert", "TrainingLogger"]
