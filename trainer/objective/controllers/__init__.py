"""Coefficients that change during a run."""
