"""Which tensor of a run has which type. The one place that decides it, from ``model.dtype``,
``hardware.mixed_precision`` and ``engine.dtype``.

====================================  =======================  ==========================  ======================
tensor                                model.dtype=float32      float32, mixed_precision    model.dtype=16 bit
====================================  =======================  ==========================  ======================
weights of the model, checkpoints     float32                  float32                     16 bit
matmuls and attention                 float32                  16 bit (autocast)           16 bit
output layer, logits of a tile        float32                  float32                     16 bit, then float32
log-probs, entropy, losses, sums      float32                  float32                     float32
log-probs of ratios                   hardware.logprob_dtype   hardware.logprob_dtype      hardware.logprob_dtype
gradients, added up over micro-batch  float32                  float32                     float32
master weights                        the weights themselves   the weights themselves      float32
a LoRA adapter, its own master        float32                  float32                     float32
AdamW's moments                       float32                  float32                     float32
weights of the engine                 float32                  16 bit                      16 bit
====================================  =======================  ==========================  ======================

Weights of 16 bits are never trained themselves: AdamW moves a weight by about the learning rate, and bfloat16 keeps 8
bits, so at w a change below w/512 is lost; with 1e-6 that is every weight above 5e-4. So the optimiser moves float32
master weights (``update/master_weights.py``), of which the model's are the rounded image. float16 overflows above
65504 and underflows below 6e-8, so its loss is scaled (``update/loss_scale.py``); bfloat16 has the range of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.contract.config import HardwareConfig, ModelConfig
from trainer.contract.settings import require

MIXED = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""accelerate's names of what is computed with."""

DIGITS = {"float32": 24, "float16": 11, "bfloat16": 8}
"""Bits of the significand, the leading one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Types of the trainer and of its engine."""

    weights: torch.dtype
    """Of the model that is differentiated, and of the weights in a checkpoint."""
    compute: torch.dtype
    """Of matmuls and attention."""
    engine: torch.dtype
    """Of the sampler's weights and matmuls."""
    logprobs: torch.dtype = torch.float32
    """What log-probs are rounded to before ratios are made of them."""

    @property
    def autocast(self) -> torch.dtype | None:
        """What matmuls are cast to; None where the weights have that type already."""
        return self.compute if self.compute != self.weights else None

    @property
    def scales_loss(self) -> bool:
        """Whether gradients could underflow and overflow."""
        return self.compute == torch.float16

    @property
    def coarsest(self) -> str:
        """Name of the type with the fewest digits that log-probs go through: what bounds the agreement of trainer and
        engine."""
        return min((name(self.compute), name(self.engine), name(self.logprobs)), key=lambda dtype: DIGITS[dtype])


def precision(model: ModelConfig, hardware: HardwareConfig, engine: str | None) -> Precision:
    """Types of a run; ``engine`` is ``engine.dtype``, None for what the trainer computes with.

    Raises :class:`ConfigError` for weights of 16 bits that would be computed with in another type.
    """
    weights, mixed = getattr(torch, model.dtype), MIXED[hardware.mixed_precision]
    remedy = f"weights in {model.dtype} are computed with as they are: leave it at no, or set model.dtype=float32"
    allowed = mixed in (None, weights) or weights == torch.float32
    require(allowed, "hardware.mixed_precision", hardware.mixed_precision, remedy)
    compute = mixed or weights
    return Precision(
        weights=weights,
        compute=compute,
        engine=getattr(torch, engine) if engine else compute,
        logprobs=getattr(torch, hardware.logprob_dtype),
    )


def name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
