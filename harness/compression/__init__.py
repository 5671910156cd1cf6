"""Models at several precisions: one model of them, whichever way it came in."""
