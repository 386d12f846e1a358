"""Sampler and trainer must describe the same policy: the log-prob consistency check of every batch."""

from __future__ import annotations

from trainer.batch.types import TokenBatch


class EngineMismatch(RuntimeError):
    """Sampler and trainer disagree about the log-probs of the same tokens at what should be the same weights."""


GAP_BOUNDS = {"float32": (2e-3, 2e-4), "bfloat16": (1.5, 0.05), "float16": (0.3, 0.02)}
"""(largest, mean) absolute log-prob gap allowed between sampler and trainer, nats. In float32 the two agree to about
1e-6 on a 0.8 M model and 1e-4 on large ones; one forgotten sync at a usual learning rate moves log-probs by more than
1e-2. bfloat16 has 8 bits of mantissa: single tail tokens may differ by a nat, the mean stays near 0.01."""


EXACT = frozenset({"float32"})
"""Types in which what the sampler says of a token may stand for what the trainer would say at the same weights."""


def logprob_gap(batch: TokenBatch) -> tuple[float, float]:
    """(largest, mean) absolute difference between the trainer's and the sampler's log-probs, nats."""
    assert batch.old_logprobs is not None
    gap = (batch.old_logprobs - batch.sampler_logprobs).abs()[batch.mask]
    return (gap.max().item(), gap.mean().item()) if gap.numel() else (0.0, 0.0)


def check_gap(batch: TokenBatch, dtype: str) -> None:
    """Raise :class:`EngineMismatch` when the gap exceeds the bound of ``dtype``: the check that follows every weight
    sync."""
    largest, mean = logprob_gap(batch)
    max_bound, mean_bound = GAP_BOUNDS[dtype]
    if not (largest <= max_bound and mean <= mean_bound):
        raise EngineMismatch(
            f"sampler and trainer disagree by up to {largest:.2g} nats (mean {mean:.2g}; allowed {max_bound:g} and "
            f"{mean_bound:g} in {dtype}): the engine sampled from other weights, another temperature or another "
            "support than the trainer differentiates"
        )
