"""The version of this package, by itself: whatever writes it imports nothing else."""

__version__ = "0.1.0"
