"""The reward of a response from its comparison with the answer and from further verifiers, as a weighted sum.

``reward = answer + sum of weight * score``, scores from -1 to 1. The weights of the further verifiers have to add up to
less than 0.5 in size: then a reward above 0.5 means a correct answer everywhere in this program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainer.batch.types import Verdict
from trainer.contract.components import build_component
from trainer.contract.settings import ConfigError
from trainer.tasks.verifier_pool import Scores
from trainer.tasks.verifiers.base import Verifier

DECIDES = "answer"
"""A verifier of this name takes the place of the comparison with the answer; its weight is not used."""


def checked_weights(nodes: Mapping[str, Any]) -> dict[str, float]:
    """The weight of every further verifier; :class:`ConfigError` for one that cannot be built or weights too large."""
    weights = {}
    for name, node in nodes.items():
        verifier = build_component(node, f"task.verifiers.{name}")
        if not isinstance(verifier, Verifier):
            raise ConfigError(f"task.verifiers.{name} is a {type(verifier).__name__}, which has no weight and score()")
        if name != DECIDES:
            weights[name] = float(verifier.weight)
    total = sum(map(abs, weights.values()))
    if not (math.isfinite(total) and total < 0.5):
        raise ConfigError(
            f"task.verifiers: the weights of {', '.join(weights)} add up to {total:g} in size; lower them below 0.5 in "
            f"all, so that they cannot make up for an incorrect answer (a verifier named {DECIDES!r} decides)"
        )
    return weights


def combined(verdict: Verdict, scores: Scores, weights: Mapping[str, float]) -> Verdict:
    """``verdict`` with the weighted scores added; a verifier that failed adds nothing."""
    extra = sum(weight * (scores[name] or 0.0) for name, weight in weights.items())
    return replace(verdict, reward=verdict.reward + extra, failed=None in scores.values())
