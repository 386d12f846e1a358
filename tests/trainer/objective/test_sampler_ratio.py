"""Importance correction of the sampler: every choice on numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from testbench import CONTEXT, Toy, on_policy

from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError, filled
from trainer.objective.weights.sampler_ratio import SamplerRatio

CONF = Path(__file__).parents[3] / "conf" / "weight"
RATIOS = torch.tensor([[0.25, 1.5, 2.0], [4.0, 6.0, 1.0]], dtype=torch.float64)


def batch() -> TokenBatch:
    """Two rows; the last token of the second is not sampled, and holds what must never be looked at."""
    whole = on_policy(Toy()).rows(torch.tensor([0, 1]))
    mask = torch.tensor([[True, True, True], [True, True, False]])
    old = RATIOS.log().masked_fill(~mask, 50.0)
    return replace(whole, mask=mask, sampler_logprobs=torch.zeros(2, 3, dtype=torch.float64), old_logprobs=old)


def chosen(choice: str) -> list[list[float]]:
    settings = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
    settings.pop("_target_")
    found = SamplerRatio(**settings)(batch(), None, CONTEXT)
    return [[round(float(value), 9) for value in row[:n]] for row, n in zip(found, (3, 2), strict=True)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("tis", [[0.25, 1.5, 2.0], [2.0, 2.0]]),
        ("mis", [[0.25, 1.5, 2.0], [0.0, 0.0]]),
        ("icepop", [[0.0, 1.5, 2.0], [4.0, 0.0]]),
        ("tis_sequence", [[0.75] * 3, [2.0] * 2]),  # products 0.75 and 24
        ("mis_sequence", [[0.75] * 3, [0.0] * 2]),
        ("geo_mask", [[0.0] * 3, [0.0] * 2]),  # geometric means 0.909 and 4.9
    ],
)
def test_choices_by_hand(choice: str, expected: list[list[float]]) -> None:
    assert chosen(choice) == expected


def test_the_geometric_mean_keeps_whole_rows() -> None:
    found = SamplerRatio(level="geometric", mode="reject", low=0.9, high=1.1)(batch(), None, CONTEXT)
    assert found[0].tolist() == [1.0, 1.0, 1.0] and found[1, :2].tolist() == [0.0, 0.0]
    assert math.isclose(0.75 ** (1 / 3), 0.9086, abs_tol=1e-4)


@pytest.mark.parametrize(("ends", "sentence"), [({"low": 1.5}, "low=1.5"), ({"high": 0.5}, "high=0.5")])
def test_ends_that_do_not_hold_1_are_refused(ends: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"weight.tis.{sentence} cannot be used: give a number"):
        filled(SamplerRatio, ends, "weight.tis")
