"""The reference model: frozen weights that divergences are measured from, the initial ones until they are renewed.

Made by ``session.py``. It must not decide when to renew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.policy.policy import Policy
from trainer.runtime.sharding import load_weights

NAME = "reference"
"""Of its entry in the optimiser's part of a checkpoint."""


@dataclass(slots=True)
class Reference:
    """The reference policy and since when it is what it is."""

    policy: Policy | None
    """None: no member of the objective looks at one."""
    step: int = 0
    """Step whose first weights it has; 0: the initial model's."""

    def set_temperature(self, temperature: float) -> None:
        """Divide logits by what the policy's are divided by."""
        if self.policy is not None:
            self.policy = replace(self.policy, temperature=temperature)

    def renew(self, policy: Policy, step: int) -> None:
        """Take the weights of ``policy``, as it is before the updates of ``step``."""
        self.policy, self.step = self.policy and self.policy.refreshed(policy), step

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs: nothing while the initial model gives the same."""
        if self.step == 0:
            return {}
        weights = {} if self.policy is None else self.policy.frozen_weights()
        return {NAME: {"renewed_at": self.step, "weights": weights}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        if NAME in state:
            self.step = state[NAME]["renewed_at"]
            if self.policy is not None and self.policy.adapter is not None:
                self.policy = replace(self.policy, adapter=state[NAME]["weights"])
            elif self.policy is not None:
                load_weights(self.policy.model, state[NAME]["weights"])
