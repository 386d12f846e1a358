"""Shared studies: one complete, one with failed, missing and running cells and hostile text; written once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_study import HOSTILE, FakeSpec, write_study
from mlflow.tracking import MlflowClient

from dashboards.sweep.load import SweepData, load_sweep


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders that hold an empty ``mlflow.db``; MLflow needs seconds to lay out its tables, a copy needs none."""
    template = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{template}").search_experiments()

    def make() -> Path:
        folder = tmp_path_factory.mktemp("store")
        shutil.copy(template, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def study_uri(new_store: Callable[[], Path]) -> str:
    """A store with the studies ``clip_high`` (complete) and ``broken`` (three cells did not complete)."""
    folder = new_store()
    write_study(folder, FakeSpec(steps=20))
    states = {(1, 1): "FAILED", (2, 2): "MISSING", (3, 0): "RUNNING"}
    return write_study(folder, FakeSpec(study="broken", steps=12, states=states, text=HOSTILE))


@pytest.fixture(scope="session")
def sweep(study_uri: str) -> SweepData:
    return load_sweep(study_uri, "clip_high")


@pytest.fixture(scope="session")
def broken(study_uri: str) -> SweepData:
    return load_sweep(study_uri, "broken")
