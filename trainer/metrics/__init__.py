"""Metrics of a run: pure functions, one file per family, and the table that declares every name.

Nothing here logs, samples, or holds state.
"""
