"""Loss scaling for float16: the loss is scaled so that gradients do not underflow, updates with an overflowing gradient
are skipped, and the scale adapts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAME = "loss_scale"
"""Of its entry in the optimiser's part of a checkpoint."""

LEAST = 1.0
"""Scale at which a gradient that is not finite is no overflow of ours."""


@dataclass(slots=True, kw_only=True)
class LossScale:
    """Dynamic loss scale of Micikevicius et al. (arXiv 1710.03740), with the numbers of ``torch.amp.GradScaler``.

    overflow:                       scale <- scale / 2, the update is skipped
    2000 updates without overflow:  scale <- 2 scale
    """

    enabled: bool = False
    """False: the scale is 1 and stays there."""
    scale: float = 65536.0
    every: int = 2000
    """Updates without overflow before the scale is doubled."""
    good: int = 0
    """Updates since the last overflow or doubling."""

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss [] to differentiate: in its own units, times the dimensionless scale."""
        return loss * self.scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: list[nn.Parameter]) -> None:
        """Divide the gradients, which are float32 by now, by the scale."""
        if self.enabled:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(self.scale)

    def skips(self, finite: bool) -> bool:
        """Whether an update is skipped, given whether its gradient is ``finite``; the scale moves. A gradient that is
        not finite at the smallest scale is not skipped: it is no overflow, and is the caller's to refuse."""
        if not self.enabled:
            return False
        if not finite:
            skipped = self.scale > LEAST
            self.scale, self.good = max(LEAST, self.scale / 2), 0
            return skipped
        self.good += 1
        if self.good == self.every:
            self.scale, self.good = self.scale * 2, 0
        return False

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs; nothing where nothing is scaled."""
        return {NAME: {"scale": self.scale, "good": self.good}} if self.enabled else {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        if self.enabled and NAME in state:
            self.scale, self.good = state[NAME]["scale"], state[NAME]["good"]
