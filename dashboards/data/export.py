"""Writes a study or a run as files: CSV for any program, Parquet for large studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from dashboards.data.frames import Frames

FORMATS = ("csv", "parquet")
_TABLES: Mapping[str, Callable[[Frames], pd.DataFrame]] = {
    "runs": lambda frames: frames.runs,
    "metrics": lambda frames: frames.metrics,
    "finals": lambda frames: frames.finals,
    "definitions": lambda frames: frames.definitions,
    "samples": Frames.samples,
    "reliability": Frames.reliability,
    "tokens": Frames.tokens,
}


def export(frames: Frames, folder: Path, kind: str = "csv") -> list[Path]:
    """Write every table that has rows below ``folder`` and return the files; ValueError for an unknown format.

    In CSV a list, such as the influence of each token, is JSON.
    """
    if kind not in FORMATS:
        raise ValueError(f"unknown format {kind!r}: {' or '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in _TABLES.items():
        frame = table(frames)
        if frame.empty:
            continue
        path = folder / f"{name}.{kind}"
        if kind == "csv":
            _lists_as_json(frame).to_csv(path, index=False)
        else:
            _texts_as_text(frame).to_parquet(path, index=False)
        written.append(path)
    return written


def _lists_as_json(frame: pd.DataFrame) -> pd.DataFrame:
    listed = [column for column in frame if frame[column].map(lambda value: isinstance(value, list)).any()]
    return frame.assign(**{str(column): frame[column].map(json.dumps) for column in listed})


def _texts_as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """A column of mixed types, which Parquet has not, as text."""
    mixed = [
        column
        for column in frame.columns[frame.dtypes == "object"]
        if len({type(value) for value in frame[column].dropna()}) > 1
    ]
    return frame.assign(**{str(column): frame[column].astype("string") for column in mixed})
