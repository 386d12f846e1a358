"""One rank of a run of several processes: ``python gloo_rank.py FILE``; rank and address come from the environment.

Started by test_invariance.py. Writes what it got to FILE.<rank>.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from accelerate import Accelerator
from testbench import VOCABULARY, Bench, Outcome, Toy, off_policy, on_policy, plain
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.objective.objective import Objective
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.weights.sign import Sign
from trainer.policy.model import share_prompts
from trainer.runtime.ranks import Ranks

OBJECTIVE: Objective = plain(weight={"sign": Sign(positive=0.5)}, regularizer={"bonus": EntropyBonus(coef=0.1)})


def llama(dtype: torch.dtype, *, tied: bool) -> nn.Module:
    """Two blocks whose sizes three ranks cannot divide evenly. Its activations are computed anew if its output layer is
    tied, its prompts once for all responses if not."""
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=tied, initializer_range=0.3, **sizes)
    model = LlamaForCausalLM(config).to(dtype).train(tied)
    if tied:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        assert share_prompts(model)
    return model


def outcomes(ranks: Ranks, *, shard: bool) -> Mapping[str, Outcome]:
    """Gradient and sums of a step by what computed it; of sharded weights where ``shard``."""
    toy, tied, untied = Toy(), llama(torch.float32, tied=True), llama(torch.bfloat16, tied=False)
    wide = Bench(tied, micro_batch_tokens=40, ranks=ranks, shard=shard)
    return {
        "on policy": Bench(toy, micro_batch_tokens=40, ranks=ranks).step(OBJECTIVE, on_policy(toy)),
        "off policy": Bench(toy, micro_batch_tokens=40, ranks=ranks).step(OBJECTIVE, off_policy(toy)),
        "float32": wide.step(OBJECTIVE, on_policy(tied)),
        "autocast": replace(wide, autocast=torch.bfloat16).step(OBJECTIVE, off_policy(tied)),
        "offload": replace(wide, offload=True).step(OBJECTIVE, on_policy(tied)),
        "bfloat16": Bench(untied, micro_batch_tokens=40, ranks=ranks, shard=shard).step(OBJECTIVE, off_policy(untied)),
    }


def main(path: str) -> None:
    accelerator = Accelerator(cpu=True)
    ranks = Ranks(rank=accelerator.process_index, world=accelerator.num_processes)
    found = outcomes(ranks, shard=True)
    torch.save(
        {
            "world": ranks.world,
            "gradients": {name: outcome.gradient for name, outcome in found.items()},
            "means": {name: outcome.stats.means() for name, outcome in found.items()},
            "gathered": ranks.gather({"rank": ranks.rank}),
            "any": ranks.any(ranks.rank == 1),
        },
        f"{path}.{ranks.rank}",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
