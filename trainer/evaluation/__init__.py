"""Held-out suites: avg@n, pass@k, maj@n, diversity, calibration."""
