"""The sampling process, and the driver's handle on it."""
