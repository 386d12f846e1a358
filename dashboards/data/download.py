"""The data that a page carries for download: its metrics, compact enough for a page of 50 long runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboards.sweep.load import SweepData

MOST_POINTS = 200_000
"""Points in a page; above it only every second, third, ... step of the curves is carried."""
_DIGITS = 5


def download_document(sweep: SweepData, metrics: Sequence[str]) -> dict[str, Any]:
    """``runs`` (one row each), ``every`` (the stride of steps), and of each metric one [steps, values] a run.

    ``data.js`` makes rows of it: signature, level, seed, step, metric, value. Values have five significant digits.
    """
    points = sweep.metrics[sweep.metrics["metric"].isin(metrics) & sweep.metrics["value"].notna()]
    stride = max(1, -(-len(points) // MOST_POINTS))
    if stride > 1:
        last = points.groupby(["metric", "signature"])["step"].transform("max")
        sparse = points["metric"].str.startswith("eval/")
        points = points[(points["step"] % stride == 0) | (points["step"] == last) | sparse]
    place = {signature: index for index, signature in enumerate(sweep.cells["signature"])}
    columns: dict[str, dict[int, list[list[Any]]]] = {}
    for (metric, signature), rows in points.groupby(["metric", "signature"], sort=False):
        values = [float(f"{value:.{_DIGITS}g}") for value in rows["value"]]
        columns.setdefault(str(metric), {})[place[signature]] = [_gaps(rows["step"].tolist()), values]
    return {
        "runs": sweep.cells[["signature", "level", "seed", "state"]].to_numpy().tolist(),
        "every": stride,
        "metrics": columns,
    }


def _gaps(steps: Sequence[int]) -> list[int]:
    """The first step and then the distances, which are nearly always the same and so compress to nothing."""
    return [after - before for before, after in zip([0, *steps], steps, strict=False)]
