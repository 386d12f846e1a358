"""Tidy frames, statistics, figures and pages of a study, read from MLflow and from nothing else.

One exception: :mod:`dashboards.search` reads the folder of a search, where its Optuna study is.

Must not import trainer, sweeps or torch, and must not write to the store except to attach a report.
"""
