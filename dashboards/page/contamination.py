"""The table of evaluation problems that are trained on; the template escapes their text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards.sweep.load import SweepData
from dashboards.sweep.names import suite_name
from dashboards.sweep.summary import labels

_FOUND = ["suite", "prompts", "overlapping", "share", "words", "example"]


def contamination_rows(sweep: SweepData, table: pd.DataFrame) -> list[Mapping[str, Any]]:
    """A row a suite where all levels found the same, else a row a suite and level; ``label`` is that of the level, or
    empty. Seeds of a level have the same data, so the first that says anything speaks for it."""
    first = table.drop_duplicates(["suite", "level"])
    names = labels(sweep)
    rows: list[Mapping[str, Any]] = []
    for suite, of_suite in first.groupby("suite", sort=False):
        alike = len(of_suite[_FOUND].drop_duplicates()) == 1
        for row in of_suite.head(1 if alike else len(of_suite)).to_dict("records"):
            label = "" if alike else names[row["level"]]
            example = "" if pd.isna(row["example"]) else row["example"]
            cells = {name: row[name] for name in ("prompts", "overlapping", "share", "words")}
            rows.append({**cells, "suite": suite_name(str(suite)), "label": label, "example": example})
    return rows
