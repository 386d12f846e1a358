"""Ranks, signals and clocks."""
