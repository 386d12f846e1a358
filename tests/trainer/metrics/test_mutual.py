"""Mutual information of responses and prompts: numbers by hand, and the value that a run logs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import metrics, write_run

from trainer.__main__ import main
from trainer.batch.types import Prompt, Rollout
from trainer.metrics.mutual import PROMPTS, crossed, mutual_information


def rollout(group: int, prompt: int, response: int) -> Rollout:
    return Rollout(
        prompt=Prompt(id=f"p{prompt}", text=str(prompt), data={}),
        prompt_ids=(prompt,),
        completion_ids=(response,),
        sampler_logprobs=(-1.0,),
        finish_reason="stop",
        text="",
        group=group,
        weight_version=0,
    )


def test_numbers_by_hand() -> None:
    # (log(0.5 / 0.375) + log(0.3 / 0.2)) / 2 = log(2) / 2
    chances = torch.tensor([[0.5, 0.25], [0.1, 0.3]], dtype=torch.float64)
    assert mutual_information(chances.log()) == pytest.approx(math.log(2) / 2)


def test_ends() -> None:
    same = torch.full((3, 3), -20.0)
    assert mutual_information(same) == pytest.approx(0.0, abs=1e-12)
    apart = torch.where(torch.eye(3, dtype=torch.bool), -20.0, -1e6)
    assert mutual_information(apart) == pytest.approx(math.log(3))


def test_a_shift_that_every_prompt_shares_changes_nothing() -> None:
    """How likely a response is at all says nothing of its prompt."""
    logprobs = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = logprobs + torch.tensor([[0.0], [-3.0], [5.0], [-700.0]])
    assert mutual_information(shifted) == pytest.approx(mutual_information(logprobs))


def test_the_first_response_of_every_prompt_follows_every_prompt() -> None:
    given = [rollout(0, 10, 1), rollout(0, 10, 2), rollout(1, 11, 3), replace(rollout(2, 12, 4), completion_ids=())]
    pairs = [(item.completion_ids, item.prompt_ids, item.prompt.id, item.group) for item in crossed(given)]
    assert pairs == [
        ((1,), (10,), "p10", 0), ((1,), (11,), "p11", 1), ((3,), (10,), "p10", 0), ((3,), (11,), "p11", 1),
    ]  # fmt: skip
    many = [rollout(number, number + 1, 0) for number in range(20)]
    assert len(crossed(many)) == PROMPTS**2 and len(crossed(many, 3)) == 9


def test_a_run_logs_it_where_the_change_of_entropy_is_measured(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"steps": 3, "accounting.every": 2, "evaluation.every": 0})
    assert main([str(folder.path)]) == 0
    logged = [line.get("entropy/mutual_information") for line in metrics(folder)]
    assert [value is not None for value in logged[:3]] == [True, False, True]
    prompts = folder.config()["rollout"]["prompts_per_step"]
    # The model has learned to write the numbers of its prompt: most of what it can say.
    assert all(0.5 * math.log(prompts) < value <= math.log(prompts) for value in logged if value is not None)
