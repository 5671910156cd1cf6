"""Harness: what does this model really cost on this hardware?"""

__version__ = "0.1.0"
