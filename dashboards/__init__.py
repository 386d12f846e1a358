"""Reports of sweeps: data frames, statistics, figures and HTML pages, read from MLflow.

:mod:`dashboards.search` also reads the folder of a search, which holds its Optuna study. This package imports neither
trainer nor sweeps nor torch. It writes nothing to MLflow except a report, as an artifact.
"""
