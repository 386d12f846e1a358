"""Sweeps: many training runs from one command line, queued, resumed after a failure, and reported.

A sweep is a grid of cells. A cell is one configuration and one seed, and each cell is trained in a run folder of its
own by ``python -m trainer RUN_DIR``. Of ``trainer`` this package imports :mod:`trainer.contract` only, which needs no
torch, and it imports nothing of ``dashboards``. ``sweeps.run("steps=20")`` is a run from Python (docs/python.md).
"""

from sweeps.api import run

__all__ = ["run"]
