"""Compression Board: models at several precisions side by side, in TensorBoard and in reports."""
