"""A backend, a profiler and a backend that cannot be imported, all made outside of Harness."""
