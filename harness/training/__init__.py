"""Watch a model while it trains: curves, alerts and checkpoints, beside its benchmark.

Importing this loads neither torch nor TensorBoard; torch objects are understood where they come.
"""

from harness.training.alerts import RULES, Alert, TrainingAlert
from harness.training.checkpoints import Checkpoint, CheckpointManager
from harness.training.hyperparameters import Configuration, best_configuration
from harness.training.logger import TrainingLogger

__all__ = [
    "RULES",
    "Alert",
    "Checkpoint",
    "CheckpointManager",
    "Configuration",
    "TrainingAlert",
    "TrainingLogger",
    "best_configuration",
]
