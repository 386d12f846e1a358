"""What an engine is told of the device."""

from __future__ import annotations

import pytest
import torch
from runs import run_config

from trainer.policy.model import load_tokenizer
from trainer.session.devices import engine_setup
from trainer.setup.build import build_run


@pytest.mark.parametrize(("device", "told"), [("cpu", "cpu"), ("cpu:1", "cpu"), ("cuda:1", "cuda:1")])
def test_every_rank_on_cpus_has_the_same_one(device: str, told: str) -> None:
    """accelerate says cpu:1 to the second of two ranks, and vLLM then took 45 % of the memory as a GPU's."""
    run = build_run(run_config())
    assert engine_setup(run, load_tokenizer(run.model), torch.device(device)).device == told
