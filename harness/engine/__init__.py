"""Runs a measurement: a driver that watches, and a worker that loads the model and loops."""
