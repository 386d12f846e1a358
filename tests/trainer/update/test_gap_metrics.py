"""How far sampler and trainer are apart, on numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from testbench import Toy, on_policy

from trainer.update.logprob_gap import EngineMismatch, check_gap, effective_sample_fraction, gap_metrics


def test_metrics_by_hand() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    gap = torch.tensor([[math.log(1.5), -math.log(4.0)], [0.0, 9.0]])
    batch = on_policy(Toy()).rows(torch.tensor([0, 1]))
    found = gap_metrics(replace(batch, mask=mask, sampler_logprobs=torch.zeros(2, 2), old_logprobs=gap))
    # Ratios 3/2, 1/4 and 1; of the rows 3/8 and 1.
    expected = {
        "logprob_gap_max": math.log(4.0),
        "logprob_gap_mean": math.log(6.0) / 3,
        "k3": (1.5 + 0.25 + 1 - 3 - (math.log(1.5) - math.log(4.0))) / 3,
        "ess_frac": 2.75**2 / (3 * (2.25 + 1 / 16 + 1)),
        "outside_frac": 1 / 3,
        "sequence_gap_max": math.log(8 / 3),
        "sequence_gap_mean": math.log(8 / 3) / 2,
        "sequence_ess_frac": 1.375**2 / (2 * (9 / 64 + 1)),
    }
    assert found == pytest.approx({f"engine/{name}": value for name, value in expected.items()}, rel=1e-6)


def test_effective_share_has_the_ends_of_its_definition() -> None:
    assert effective_sample_fraction(torch.zeros(7)) == 1.0
    assert effective_sample_fraction(torch.tensor([20.0, -20.0, -20.0, -20.0])) == pytest.approx(0.25)


def test_bounds_can_be_set_and_the_message_says_what_to_do() -> None:
    batch = on_policy(Toy())
    off = replace(batch, old_logprobs=batch.sampler_logprobs + 0.01 * batch.mask)
    with pytest.raises(
        EngineMismatch, match=r"raise engine.gap_max and engine.gap_mean and correct for it with weight"
    ):
        check_gap(off, "float32")
    check_gap(off, "float32", (0.02, 0.02))
    with pytest.raises(EngineMismatch, match=r"allowed 0.02 and 0.0002 in float32"):
        check_gap(off, "float32", (0.02, None))
    far = replace(batch, old_logprobs=batch.sampler_logprobs + 3.0 * batch.mask)
    with pytest.raises(EngineMismatch, match="look for a weight sync that did not reach the engine"):
        check_gap(far, "float32")
