"""Reports of sweeps: data frames, statistics, figures and HTML pages, read from MLflow.

``dashboards.load("clip_high")`` gives a study or a run as tidy data frames (docs/python.md). :mod:`dashboards.search`
also reads the folder of a search, which holds its Optuna study. This package imports neither trainer nor sweeps nor
torch. It writes nothing to MLflow except a report, as an artifact.
"""

from dashboards.data.frames import Frames, load

__all__ = ["Frames", "load"]
