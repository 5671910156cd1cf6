"""Watch a model while it trains: curves, alerts and checkpoints, beside its benchmark.

Importing this loads neither torch nor TensorBoard; torch objects are understood where they come.
"""
