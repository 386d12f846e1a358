"""What the peers' own functions make of given numbers. A child process of ``parity.py`` under the peers' Python.

Standard input: ``{"peer": "trl" or "verl", "batch": {...}, "cases": {name: settings}}``; output: the peer's version,
and for each name loss and gradient by the log-probs, or advantages, or the sentence why there are none.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import torch

Batch = dict[str, torch.Tensor]
TRL = {
    "aux_loss_enabled": False,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "importance_sampling_level": "token",
    "beta": 0.0,
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "use_vllm": False,
    "vllm_importance_sampling_correction": False,
    "max_completion_length": 8,
    "current_gradient_accumulation_steps": 1,
    "_entropy_bonus_enabled": False,
}
"""What ``GRPOTrainer._compute_loss`` reads of the trainer, at its defaults where it has any."""


def trl_case(batch: Batch, settings: dict[str, Any]) -> dict[str, Any]:
    """``_compute_loss`` of TRL's GRPO or GMPO trainer, with log-probs in place of a model."""
    from trl import GRPOConfig
    from trl.experimental.gmpo import GMPOTrainer
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer, logprobs = (GMPOTrainer if settings.pop("gmpo", False) else GRPOTrainer), batch["logprobs"]
    fields = GRPOConfig.__dataclass_fields__
    names = (*(name for name in fields if name.startswith(("vespo_", "sapo_"))), "delta", "use_bias_correction_kl")
    arguments = {name: settings.pop(name, fields[name].default) for name in names}
    whole = SimpleNamespace(
        args=SimpleNamespace(**arguments),
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics={"eval": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, batch["entropy"], None),
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        get_high_entropy_mask=lambda *given: GRPOTrainer.get_high_entropy_mask(whole, *given),
        **(TRL | settings),
    )
    whole.accelerator.gather = whole.accelerator.pad_across_processes = lambda x, **_: x
    whole.accelerator.device = logprobs.device
    mask = batch["mask"].to(logprobs.dtype)
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": batch["advantages"],
        "old_per_token_logps": batch["old_logprobs"],
        "ref_per_token_logps": batch["ref_logprobs"],
        "num_items_in_batch": mask.sum(),
    }
    return _differentiated(trainer._compute_loss(whole, None, inputs), logprobs)


def verl_case(batch: Batch, settings: dict[str, Any]) -> dict[str, Any]:
    """A registered policy loss or advantage estimator of verl."""
    from verl.trainer.ppo import core_algos

    mask = batch["mask"].to(batch["logprobs"].dtype)
    if "advantage" in settings:
        rewards = torch.zeros_like(mask)
        rewards[:, 0] = batch["rewards"]
        function = core_algos.get_adv_estimator_fn(settings["advantage"])
        more = {"config": {}} if settings["advantage"] in ("grpo_passk", "opo") else {}
        values, _ = function(rewards, mask, index=batch["group"].numpy(), **more)
        return {"advantages": values[:, 0].tolist()}
    from verl.workers.config import ActorConfig, PolicyLossConfig

    fields = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1, "ppo_mini_batch_size": 1}
    chosen = {"policy_loss": PolicyLossConfig(**settings.get("policy_loss", {}))}
    config = ActorConfig(**fields, **settings.get("config", {}), **chosen)
    function = core_algos.get_policy_loss_fn(settings["loss"])
    loss, _ = function(
        old_log_prob=batch["old_logprobs"],
        log_prob=batch["logprobs"],
        advantages=batch["advantages"][:, None].expand(mask.shape),
        response_mask=mask,
        loss_agg_mode=settings.get("reduction", "token-mean"),
        config=config,
    )
    return _differentiated(loss, batch["logprobs"])


def _differentiated(loss: torch.Tensor, logprobs: torch.Tensor) -> dict[str, Any]:
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return {"loss": float(loss.detach()), "gradient": gradient.tolist()}


PEERS: dict[str, Callable[[Batch, dict[str, Any]], dict[str, Any]]] = {"trl": trl_case, "verl": verl_case}


def tensors(numbers: dict[str, Any]) -> Batch:
    """The batch in float64, its log-probs a leaf."""
    batch = {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}
    batch |= {"mask": batch["mask"].bool(), "group": batch["group"].long()}
    batch["logprobs"].requires_grad_()
    return batch


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.read())
    answers: dict[str, Any] = {}
    for name, settings in request["cases"].items():
        try:
            answers[name] = PEERS[request["peer"]](tensors(request["batch"]), dict(settings))
        except ImportError as error:
            answers[name] = {"missing": f"{request['peer']} is not installed: {error}"}
    print(json.dumps({"version": _version(request["peer"]), "answers": answers}))


if __name__ == "__main__":
    main()
