"""Which layers to leave in FP32: what INT8 saves in each, and what it costs in answers."""
