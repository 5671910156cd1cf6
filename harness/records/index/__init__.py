"""The index of a results folder."""
