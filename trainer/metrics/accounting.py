"""Entropy accounting: the measured change of entropy per token beside four first-order predictions of it.

M response tokens, flat; all in nats. It must not run the model. Sources: specification 3.2 (arXiv 2505.22617) and 5
(STEER, arXiv 2510.10150, and the exact tabular term). Predictions carry an unknown step size, so only correlation
and best-scale error mean anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.metrics import estimators
from trainer.metrics.calibration import average_ranks
from trainer.metrics.estimators import covariance, k3, pearson

SUM_P2_LOGP_H = "sum_p2_logp_h"
"""Name in TokenTerms.extras of sum_a p_a^2 (log p_a + H), which the exact estimator needs."""
RATIO, KEPT_RATIO = "update_ratio", "update_kept_ratio"
"""Columns of ``batch.extras`` that ``update.py`` fills when asked (see :class:`TokenChange`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChange:
    """What the accounting looks at; every field [M], detached."""

    logprobs_before: Float[Tensor, " M"]
    """log p of the sampled token at the weights that sampled, nats."""
    logprobs_after: Float[Tensor, " M"]
    """The same after the updates, nats."""
    entropy_before: Float[Tensor, " M"]
    """Full-vocabulary entropy H at the weights that sampled, nats."""
    entropy_after: Float[Tensor, " M"]
    """The same after the updates, nats."""
    advantages: Float[Tensor, " M"]
    """Advantage of the token, as the loss used it."""
    sum_p2_logp_h: Float[Tensor, " M"] | None = None
    """sum_a p_a^2 (log p_a + H) before the updates, nats; without it there is no exact estimate."""
    ratio: Float[Tensor, " M"] | None = None
    """Importance ratio r at the update that used the token, the mean over its updates; None means 1, the first
    update."""
    kept_ratio: Float[Tensor, " M"] | None = None
    """r I: the same, 0 at updates where the surrogate's clipping had removed the token's gradient; None: never."""

    @property
    def measured(self) -> Float[Tensor, " M"]:
        """Delta H = entropy after - entropy before, float64 nats."""
        return self.entropy_after.double() - self.entropy_before.double()


def steer_released(change: TokenChange, *, one_minus_pi_power: float = 1.0) -> Float[Tensor, " M"]:
    """-r A (1 - p)^power (log p + H), as in the authors' code: one factor p less than the exact term. Nats times
    units of the advantage."""
    return _steer(change, _weighted_advantages(change.ratio, change.advantages), one_minus_pi_power)


def steer_published(change: TokenChange, *, one_minus_pi_power: float = 1.0) -> Float[Tensor, " M"]:
    """:func:`steer_released` times the clip indicator I of the paper; equal to it while nothing is clipped.

    I is 0 where the surrogate in use has removed the token's gradient, whatever it clips by. The paper's exponent on
    (1 - p) could not be verified (specification 5); the default is 1. Nats times units of the advantage.
    """
    return _steer(change, _gradient_factor(change), one_minus_pi_power)


def _steer(change: TokenChange, push: Float[Tensor, " M"], power: float) -> Float[Tensor, " M"]:
    return estimators.steer(push, change.logprobs_before.double(), change.entropy_before.double(), power=power)


def exact(change: TokenChange) -> Float[Tensor, " M"]:
    """:func:`trainer.metrics.estimators.exact` with ``push = r I A``, I the clip indicator: a token without gradient
    moves no logit. Nats times units of the advantage."""
    if change.sum_p2_logp_h is None:
        raise ValueError(f"the exact entropy estimate needs {SUM_P2_LOGP_H}; ask the policy for that statistic")
    before = (change.logprobs_before.double(), change.entropy_before.double(), change.sum_p2_logp_h.double())
    return estimators.exact(_gradient_factor(change), *before)


def quadrants(change: TokenChange) -> dict[str, Bool[Tensor, " M"]]:
    """:func:`trainer.metrics.estimators.quadrants` by the sign of the advantage: masks, dimensionless."""
    return estimators.quadrants(change.advantages, change.logprobs_before, change.entropy_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well one estimator predicts the measured change, over M tokens. nan where undefined (nothing varies)."""

    scale: float
    """Least-squares eta = <prediction, measured> / <prediction, prediction>, no intercept."""
    predicted: float
    """eta * mean prediction, nats per token; comparable with the mean measured change."""
    pearson: float
    """Correlation of values."""
    spearman: float
    """Correlation of ranks, ties sharing their mean rank."""
    rmse: float
    """Root mean square of measured - eta * prediction, nats."""


def compare(
    prediction: Float[Tensor, " M"], measured: Float[Tensor, " M"], measured_ranks: Float[Tensor, " M"] | None = None
) -> Fit:
    """Fit one prediction; ``measured_ranks`` saves a sort when several are compared with one measurement.

    ``measured`` in nats; the prediction may be in any units, which ``scale`` takes up.
    """
    ranks = _ranks(measured) if measured_ranks is None else measured_ranks
    power = float(prediction @ prediction)
    scale = float(prediction @ measured) / power if power > 0 else math.nan
    residual = measured - scale * prediction
    return Fit(
        scale=scale,
        predicted=scale * float(prediction.mean()),
        pearson=pearson(prediction, measured),
        spearman=pearson(_ranks(prediction), ranks),
        rmse=math.sqrt(float(residual @ residual) / len(measured)),
    )


def account(change: TokenChange) -> dict[str, float]:
    """The ``entropy/*`` metrics of one step, {} without tokens. The five quadrants sum to
    ``entropy/delta_measured``.
    """
    measured = change.measured
    if not len(measured):
        return {}
    zero = measured.new_zeros(())
    sums = {name: float(torch.where(mask, measured, zero).sum()) for name, mask in quadrants(change).items()}
    parts = {name: total / len(measured) for name, total in sums.items()}
    metrics = {f"entropy/delta_{name}": part for name, part in parts.items()}
    metrics["entropy/delta_measured"] = math.fsum(parts.values())
    log_ratio = change.logprobs_after.double() - change.logprobs_before.double()
    metrics["entropy/kl_step"] = float(k3(log_ratio).mean())
    predictions = {
        "covariance": -covariance(change.logprobs_before.double(), change.advantages.double()),
        "steer_published": steer_published(change),
        "steer_released": steer_released(change),
    }
    if change.sum_p2_logp_h is not None:
        predictions["exact"] = exact(change)
    ranks = _ranks(measured)
    for name, prediction in predictions.items():
        fit = compare(prediction, measured, ranks)
        metrics[f"entropy/delta_predicted_{name}"] = fit.predicted
        metrics[f"entropy/scale_{name}"] = fit.scale
        metrics[f"entropy/corr_pearson_{name}"] = fit.pearson
        metrics[f"entropy/corr_spearman_{name}"] = fit.spearman
        metrics[f"entropy/rmse_{name}"] = fit.rmse
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


def token_change(batch: TokenBatch, after: TokenTerms) -> TokenChange:
    """The sampled tokens of a batch, flat. ``after`` [N, T] is a forward pass at the updated weights on the same batch.

    Takes :data:`SUM_P2_LOGP_H`, :data:`RATIO` and :data:`KEPT_RATIO` from ``batch.extras`` if they are there.
    """
    if batch.old_logprobs is None or batch.old_entropy is None or batch.advantages is None:
        raise ValueError(
            "entropy accounting needs old_logprobs, old_entropy and advantages; run the old-log-prob forward pass first"
        )
    mask = batch.mask
    columns = {name: batch.extras[name][mask] for name in (SUM_P2_LOGP_H, RATIO, KEPT_RATIO) if name in batch.extras}
    return TokenChange(
        logprobs_before=batch.old_logprobs[mask],
        logprobs_after=after.logprobs.detach()[mask],
        entropy_before=batch.old_entropy[mask],
        entropy_after=after.entropy.detach()[mask],
        advantages=batch.advantages[mask],
        sum_p2_logp_h=columns.get(SUM_P2_LOGP_H),
        ratio=columns.get(RATIO),
        kept_ratio=columns.get(KEPT_RATIO),
    )


def _gradient_factor(change: TokenChange) -> Float[Tensor, " M"]:
    """r I A in float64: what the gradient of the token's log-prob was multiplied by."""
    return _weighted_advantages(change.ratio if change.kept_ratio is None else change.kept_ratio, change.advantages)


def _weighted_advantages(ratio: Float[Tensor, " M"] | None, advantages: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    return advantages.double() if ratio is None else ratio.double() * advantages.double()


def _ranks(values: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """:func:`trainer.metrics.calibration.average_ranks` of a tensor, float64."""
    return torch.from_numpy(average_ranks(values.detach().cpu().numpy())).to(values.device)
