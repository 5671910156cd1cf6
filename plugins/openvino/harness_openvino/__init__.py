"""OpenVINO as a backend of Harness."""
