"""Optuna search over any configuration keys. A trial trains one configuration on several seeds.

Start reading in ``driver.py``.
"""
