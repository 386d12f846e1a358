"""Calibration of confidence: ECE, Brier score, AUROC and the points of a reliability diagram.

Confidence comes from log-probs, from agreement or from what a response says of itself; this file must not judge
answers. Definitions: specification 15.4.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from trainer.batch.types import Rollout

BINS = 10
"""Equal-width bins on [0, 1]; bin b holds b/10 <= confidence < (b+1)/10, the last one 1.0 too."""

_STATED = re.compile(r"<confidence>\s*([01](?:\.\d*)?|\.\d+|\d{1,3}(?:\.\d*)?\s*%)\s*</confidence>")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityPoint:
    """One non-empty bin of a reliability diagram."""

    confidence: float
    """Mean confidence in the bin."""
    accuracy: float
    """Share of correct responses in the bin."""
    count: int
    """Responses in the bin."""


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> list[ReliabilityPoint]:
    """Non-empty bins in ascending confidence. ``confidence`` [N] in [0, 1], ``correct`` [N] of 0 or 1."""
    values, correct = _checked(confidence, correct)
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    total = np.bincount(index, weights=values, minlength=bins)
    hits = np.bincount(index, weights=correct, minlength=bins)
    return [
        ReliabilityPoint(confidence=float(total[b] / count[b]), accuracy=float(hits[b] / count[b]), count=int(count[b]))
        for b in np.flatnonzero(count)
    ]


def ece(points: Sequence[ReliabilityPoint]) -> float:
    """Expected calibration error: sum_b (n_b / N) |accuracy_b - confidence_b|; empty bins contribute 0; nan if N =
    0.
    """
    total = sum(point.count for point in points)
    gaps = sum(point.count * abs(point.accuracy - point.confidence) for point in points)
    return gaps / total if total else math.nan


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """mean (confidence - correct)^2; 0 is perfect; nan without responses."""
    values, correct = _checked(confidence, correct)
    return float(np.mean((values - correct) ** 2)) if len(values) else math.nan


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """P(confidence of a correct response > of an incorrect one) + P(equal) / 2; nan if all are correct or all
    incorrect.

    Rank formula (Mann-Whitney): (sum of the correct ones' average ranks - n1 (n1 + 1) / 2) / (n1 * n0).
    """
    values, correct = _checked(confidence, correct)
    positives = float(correct.sum())
    negatives = len(correct) - positives
    if positives == 0 or negatives == 0:
        return math.nan
    rank_sum = float(average_ranks(values)[correct > 0].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def average_ranks(values: Floats) -> Floats:
    """1-based ranks [N]; equal values share the mean of their ranks: [3, 1, 3] -> [2.5, 1, 2.5]."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[inverse]
    return ranks


def logprob_confidence(rollouts: Sequence[Rollout]) -> Floats:
    """[N] exp(mean log-prob of the sampled tokens): geometric-mean token probability, in [0, 1].

    Log-probs are the sampler's: of the distribution that was sampled from, after temperature and top-p, which is the
    model's own at temperature 1 and top-p 1; of greedy responses they are those of temperature 1. Leading
    context tokens were given, not sampled, and do not count; a response without sampled tokens has confidence 1.
    """
    means = [
        math.fsum(logprobs) / len(logprobs) if (logprobs := rollout.sampler_logprobs[rollout.num_context :]) else 0.0
        for rollout in rollouts
    ]
    confidence: Floats = np.minimum(np.exp(np.array(means, dtype=np.float64)), 1.0)
    return confidence


def majority_confidence(rollouts: Sequence[Rollout]) -> Floats:
    """[N] share of its prompt's samples that agree with a response's own answer, itself included.

    One point per response rather than one per prompt (the frequency of the winning answer): minority answers are
    claims too, and N points fill ten bins where P cannot. A response without a readable answer has confidence 0.
    """
    answers = [None if rollout.verdict is None else rollout.verdict.answer for rollout in rollouts]
    groups = [rollout.group for rollout in rollouts]
    votes = Counter(zip(groups, answers, strict=True))
    sizes = Counter(groups)
    shares = [
        0.0 if answer is None else votes[group, answer] / sizes[group]
        for group, answer in zip(groups, answers, strict=True)
    ]
    return np.array(shares, dtype=np.float64)


def stated_confidence(text: str) -> float | None:
    """The probability in the last ``<confidence>`` of a response (``0.7`` or ``70%``), None where there is none from 0
    to 1. Source: RLCR, arXiv 2507.16806."""
    matches = _STATED.findall(text)
    if not matches:
        return None
    number = matches[-1]
    value = float(number.rstrip("% ")) / 100 if number.endswith("%") else float(number)
    return value if 0 <= value <= 1 else None


def calibration_metrics(
    rollouts: Sequence[Rollout],
) -> tuple[dict[str, float], dict[str, list[ReliabilityPoint]]]:
    """Metrics by bare name, and reliability points by confidence (``logprob``, ``majority``, ``stated``), of verified
    rollouts.

    Undefined metrics are left out: those of the majority where no prompt has two samples, and those of stated
    confidence where no response states any. The latter are over the responses that do, whose share is
    ``stated_frac``.
    """
    correct = np.array([rollout.is_correct for rollout in rollouts], dtype=np.float64)
    confidences = {"": logprob_confidence(rollouts)}
    if len({rollout.group for rollout in rollouts}) < len(rollouts):
        confidences["_majority"] = majority_confidence(rollouts)
    stated = np.array([stated_confidence(rollout.text) for rollout in rollouts], dtype=np.float64)  # nan for None
    metrics: dict[str, float] = {}
    if not np.isnan(stated).all():
        confidences["_stated"] = stated
        metrics["stated_frac"] = float(1 - np.isnan(stated).mean())
    points: dict[str, list[ReliabilityPoint]] = {}
    for suffix, confidence in confidences.items():
        known = ~np.isnan(confidence)
        bins = points[suffix.removeprefix("_") or "logprob"] = reliability(confidence[known], correct[known])
        metrics[f"ece{suffix}"] = ece(bins)
        metrics[f"brier{suffix}"] = brier(confidence[known], correct[known])
        metrics[f"auroc{suffix}"] = auroc(confidence[known], correct[known])
    return {name: value for name, value in metrics.items() if not math.isnan(value)}, points


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 [N]; ValueError on unequal lengths or a confidence outside [0, 1]."""
    values, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if values.shape != correct.shape or values.ndim != 1:
        raise ValueError(f"calibration got shapes {values.shape} and {correct.shape}; give one confidence per response")
    if len(values) and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError("calibration got a confidence outside 0..1 or not a number; give probabilities")
    return values, correct
