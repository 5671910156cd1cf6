"""Many cells in one night: a matrix from a file, measured in turn, launch by launch."""
