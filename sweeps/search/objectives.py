"""The values of a search's objectives for one run, read from its ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from sweeps.search.settings import SearchObjective
from trainer.contract.records import read_records


def recorded(path: Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of every step that logged ``metric``; a value that was not finite is NaN."""
    return series(read_records(path / "metrics.jsonl")[0], metric)


def series(records: Iterable[Mapping[str, object]], metric: str) -> list[tuple[int, float]]:
    """(step, value) of ``metric`` in records of ``metrics.jsonl``; of several records of a step the last counts."""
    points: dict[int, float] = {}
    for record in records:
        metrics, step = record["metrics"], record["step"]
        assert isinstance(metrics, Mapping) and isinstance(step, int)
        if metric in metrics:
            value = metrics[metric]
            points[step] = math.nan if value is None else float(value)
    return sorted(points.items())


def value_of(run_dir: Path, objective: SearchObjective) -> float | None:
    """The objective of a run: mean of its last values; None when it logged none."""
    values = [value for _, value in recorded(run_dir, objective.metric)[-objective.last :]]
    return fmean(values) if values else None


def mean_over_seeds(values: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[float] | None:
    """Each objective averaged over ``seeds``; None while one of them has no values."""
    if any(str(seed) not in values for seed in seeds):
        return None
    return [fmean(column) for column in zip(*(values[str(seed)] for seed in seeds), strict=True)]


def num_better(value: Sequence[float], others: Iterable[Sequence[float]], signs: Sequence[int]) -> int:
    """How many of ``others`` are better than ``value``; with several objectives, how many dominate it."""

    def dominates(other: Sequence[float]) -> bool:
        pairs = [(sign * a, sign * b) for a, b, sign in zip(other, value, signs, strict=True)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return sum(map(dominates, others))
