"""The gate: a comparison held against a policy."""
