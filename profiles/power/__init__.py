"""Meters of power and energy."""
