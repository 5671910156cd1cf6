"""How inferences follow one another: the timed loops."""
