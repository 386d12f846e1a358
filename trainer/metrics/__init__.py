"""Metrics of a run: pure functions, one file per family, and the table that declares every name.

Called by the loop and by evaluate.py. Nothing here logs, samples, or holds state.
"""
