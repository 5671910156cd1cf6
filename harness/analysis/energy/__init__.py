"""Joules per inference of one run: from readings to a figure, or the reason why there is none."""
