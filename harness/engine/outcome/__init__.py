"""From what a run gathered to its result."""
