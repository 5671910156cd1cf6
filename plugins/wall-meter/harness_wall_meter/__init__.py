"""A smart plug or UPS over HTTP as a profiler of Harness."""
