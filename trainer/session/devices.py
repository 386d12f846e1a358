"""What a run computes on, and what its engine has to be able to do. It must not load a model."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from transformers import PreTrainedTokenizerBase

from trainer.contract.settings import require
from trainer.engine.base import EngineSetup
from trainer.policy.model import context_length, end_tokens, load_config, model_path
from trainer.policy.precision import name, precision
from trainer.setup.build import Run
from trainer.setup.examine import fitting, require_device

DECIDED = "a run folder says what it is computed on; start runs through sweep.py, which decides"
"""The remedy for what would make a run's bytes depend on the machine that it happens to be on."""


def make_accelerator(run: Run) -> Accelerator:
    """Accelerate's handle on device and ranks; raises :class:`ConfigError` for what is undecided, or a device that is
    absent."""
    device = run.hardware.device
    cpu = device == "cpu" or not torch.cuda.is_available()
    require(device != "auto", "hardware.device", device, DECIDED)
    require(run.hardware.num_threads is not None, "hardware.num_threads", None, DECIDED)
    require_device(run.hardware)
    # Token columns live on the CPU and gradients on the GPU: both need a way to be summed.
    handlers = [] if cpu else [InitProcessGroupKwargs(backend="cpu:gloo,cuda:nccl")]
    # Autocast, master weights and loss scaling are ours (policy/precision.py), so accelerate does none of them.
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)


def engine_setup(run: Run, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> EngineSetup:
    """What the run's engine has to be able to do; raises :class:`ConfigError` for prompts that do not fit."""
    _, longest = fitting(run)
    # Rounded up, so that cells that differ a little in their prompts can share an engine.
    rounded = -(-(longest + 1) // 64) * 64
    return EngineSetup(
        model_path=str(model_path(run.model)),
        dtype=name(precision(run.model, run.hardware, run.engine.dtype).engine),
        trust_remote_code=run.model.trust_remote_code,
        max_length=min(rounded, context_length(load_config(run.model)) or rounded),
        end_tokens=end_tokens(run.model, tokenizer),
        # accelerate numbers the CPU of every rank, "cpu:1", but there is only one.
        device="cpu" if device.type == "cpu" else str(device),
    )
