"""Intervals, tests and fits; numbers as text."""
