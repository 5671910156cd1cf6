"""The name that `harness.profiles.power.powercap` had before it moved."""

from harness.profiles.power.powercap import PowercapSource

__all__ = ["PowercapSource"]
