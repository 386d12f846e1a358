"""The log-prob consistency check of every batch: sampler and trainer must describe the same policy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.metrics.estimators import bounded, k3


class EngineMismatch(RuntimeError):
    """Sampler and trainer disagree about the log-probs of the same tokens at what should be the same weights."""


GAP_BOUNDS = {"float32": (2e-3, 2e-4), "bfloat16": (1.5, 0.05), "float16": (0.3, 0.02)}
"""(largest, mean) absolute log-prob gap allowed between sampler and trainer, nats. In float32 the two agree to about
1e-6 on a 0.8 M model and 1e-4 on large ones; one forgotten sync at a usual learning rate moves log-probs by more than
1e-2. bfloat16 has 8 bits of mantissa: single tail tokens may differ by a nat, the mean stays near 0.01."""


EXACT = frozenset({"float32"})
"""Types in which what the sampler says of a token may stand for what the trainer would say at the same weights."""

USUAL = (0.5, 2.0)
"""Ratios of trainer to sampler within which a token counts as agreed on: a factor of two either way."""


def logprob_gap(batch: TokenBatch) -> tuple[float, float]:
    """(largest, mean) absolute difference between the trainer's and the sampler's log-probs, nats."""
    gap = _difference(batch)[batch.mask].abs()
    return (gap.max().item(), gap.mean().item()) if gap.numel() else (0.0, 0.0)


def _difference(batch: TokenBatch) -> Float[Tensor, "N T"]:
    assert batch.old_logprobs is not None
    return batch.old_logprobs - batch.sampler_logprobs


def gap_metrics(batch: TokenBatch) -> dict[str, float]:
    """How far sampler and trainer are apart, before anything is truncated, per token and per response.

    With ``d = old_logprobs - sampler_logprobs`` and ``rho = exp(d)``, d clamped to 20 either way::

        logprob_gap_max, _mean          max and mean of |d|, nats (not clamped)
        sequence_gap_max, _mean         the same of the sum of d over a response, nats
        k3                              mean of rho - 1 - d: estimate of KL(sampler || trainer), nats
        ess_frac, sequence_ess_frac     (sum rho)^2 / (n sum rho^2) over tokens, over responses; 1: they agree
        outside_frac                    share of tokens with rho outside :data:`USUAL`
    """
    largest, mean = logprob_gap(batch)
    metrics = {"logprob_gap_max": largest, "logprob_gap_mean": mean}
    gaps = torch.where(batch.mask, _difference(batch).double(), 0.0)
    tokens, rows = gaps[batch.mask], gaps.sum(dim=1)[batch.mask.any(dim=1)]
    if len(tokens):
        low, high = USUAL
        ratio = bounded(tokens).exp()
        metrics |= {
            "k3": k3(tokens).mean().item(),
            "ess_frac": effective_sample_fraction(tokens),
            "outside_frac": ((ratio < low) | (ratio > high)).double().mean().item(),
            "sequence_gap_max": rows.abs().max().item(),
            "sequence_gap_mean": rows.abs().mean().item(),
            "sequence_ess_frac": effective_sample_fraction(rows),
        }
    return {f"engine/{name}": value for name, value in metrics.items()}


def effective_sample_fraction(log_ratio: Float[Tensor, " M"]) -> float:
    """Kish's effective sample size over the number of samples, ``(sum w)^2 / (M sum w^2)`` with ``w = exp(log_ratio)``;
    from 1 / M to 1, dimensionless."""
    weights = bounded(log_ratio).exp()
    return float(weights.sum() ** 2 / (len(weights) * weights.square().sum()))


def check_gap(batch: TokenBatch, dtype: str, bounds: tuple[float | None, float | None] = (None, None)) -> None:
    """Raise :class:`EngineMismatch` when the gap exceeds ``bounds`` (largest, mean), or those of ``dtype`` where they
    are None: the check that follows every weight sync."""
    largest, mean = logprob_gap(batch)
    max_bound, mean_bound = (
        usual if given is None else given for given, usual in zip(bounds, GAP_BOUNDS[dtype], strict=True)
    )
    if not (largest <= max_bound and mean <= mean_bound):
        raise EngineMismatch(
            f"sampler and trainer disagree by up to {largest:.2g} nats (mean {mean:.2g}; allowed {max_bound:g} and "
            f"{mean_bound:g} in {dtype}): the engine sampled from other weights, another temperature or another "
            f"support than the trainer differentiates, or rounds more; {_advice(mean, mean_bound)}"
        )


def _advice(mean: float, mean_bound: float) -> str:
    if not mean <= 100 * mean_bound:
        return "a gap of this size is no rounding: look for a weight sync that did not reach the engine"
    return (
        "set engine.dtype to what the trainer computes with, or, if the gap is meant, raise engine.gap_max and "
        "engine.gap_mean and correct for it with weight=[tis] or weight=[icepop]"
    )
