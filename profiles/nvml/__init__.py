"""NVML: the GPU under test as its driver shows it."""
