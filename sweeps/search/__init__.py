"""Optuna search over any configuration keys: asks as slots free up, and loses nothing when anything is killed.

Called by the Hydra sweeper when ``search=NAME`` is chosen; the first file to read is ``driver.py``.
"""
