"""Results as files of pytest-benchmark."""
