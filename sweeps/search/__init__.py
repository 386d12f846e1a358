"""Optuna search over any configuration keys: asks as slots free up, and loses nothing when anything is killed.

The first file to read is ``driver.py``.
"""
