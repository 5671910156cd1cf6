"""A report of runs as one file."""
