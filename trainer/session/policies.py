"""The policy of a run, and the frozen copy that divergences are measured from, on the run's device or sharded.

Called by ``session.py``. It must not load a checkpoint.
"""

from __future__ import annotations

import torch

from trainer.contract.seeds import derive_seed
from trainer.policy import adapter, prompt_head
from trainer.policy.model import load_model, share_prompts
from trainer.policy.policy import Policy
from trainer.policy.precision import precision
from trainer.setup.build import Run


def open_policies(run: Run, device: torch.device) -> tuple[Policy, Policy | None]:
    """The policy with the weights that the run begins with, and its frozen copy, if a member of the objective looks at
    one. A model that is sharded never is whole on ``device``: it may be too large for it."""
    sharded, offload = run.hardware.sharding != "none", run.hardware.sharding == "fsdp2_offload"
    model = load_model(run.model)
    model = model if sharded else model.to(device)
    shares = run.hardware.share_prompts and run.model.attention is None and share_prompts(model)
    adapter.add_adapter(model, run.model, derive_seed(run.seed, adapter.NAME))
    prompt_head.add_head(model, run.objective.surrogate.prompt_head, derive_seed(run.seed, prompt_head.NAME))
    types = precision(run.model, run.hardware, run.engine.dtype)
    policy = Policy(
        model=model,
        temperature=run.rollout.temperature,
        head_chunk=run.hardware.head_chunk,
        micro_batch_tokens=run.hardware.micro_batch_tokens,
        device=device,
        shares_prompts=shares,
        autocast_dtype=types.autocast,
        logprob_dtype=None if types.logprobs == torch.float32 else types.logprobs,
    )
    frozen = policy.frozen_copy() if run.objective.keeps_reference else None
    if not sharded:
        return policy, frozen
    return policy.sharded(offload=offload), frozen and frozen.sharded(offload=offload)
