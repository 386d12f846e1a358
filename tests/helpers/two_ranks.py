"""One rank of a two-process run: ``python two_ranks.py FILE``; rank and address come from the environment.

Started by test_invariance.py. Writes what it got to FILE.<rank>.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from accelerate import Accelerator
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.weights.sign import Sign
from trainer.runtime.ranks import Ranks


def main(path: str) -> None:
    accelerator = Accelerator(cpu=True)
    ranks = Ranks(rank=accelerator.process_index, world=accelerator.num_processes)
    objective = plain(weight={"sign": Sign(positive=0.5)}, regularizer={"bonus": EntropyBonus(coef=0.1)})
    bench = Bench(Toy(), micro_batch_tokens=40, ranks=ranks)
    outcomes = [bench.step(objective, batch) for batch in (on_policy(Toy()), off_policy(Toy()))]
    torch.save(
        {
            "world": ranks.world,
            "gradients": [outcome.gradient for outcome in outcomes],
            "means": [outcome.stats.means() for outcome in outcomes],
            "gathered": ranks.gather({"rank": ranks.rank}),
            "any": ranks.any(ranks.rank == 1),
        },
        f"{path}.{ranks.rank}",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
