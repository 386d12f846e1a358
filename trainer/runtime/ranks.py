"""Ranks: how work is divided and results are gathered. With ``sharding.py`` the only file that talks to other processes
of a run.

Every rank holds the whole token batch (it is small) and, unless weights are sharded, the whole model; only generation
and forward and backward passes are shared out. Selections and denominators are therefore the same numbers on any number
of ranks, by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.batch.types import TokenTerms
from trainer.runtime.sharding import is_sharded

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among its peers; ``Ranks()`` is a process alone."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    def gather(self, item: Item) -> list[Item]:
        """Everybody's item, in rank order."""
        if self.world == 1:
            return [item]
        items: list[Item | None] = [None] * self.world
        dist.all_gather_object(items, item)
        return [item for item in items if item is not None]

    def together(self, action: Callable[[], Item]) -> list[Item]:
        """What ``action`` returns on every rank, in order. What one raises is raised on all: none waits for one that is
        gone."""
        failed, result = None, None
        try:
            result = action()
        except Exception as error:
            failed = error
        found = self.gather((result, failed))
        for _, reason in found:
            if reason is not None:
                raise reason
        return [cast(Item, result) for result, _ in found]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks of a tensor [any shape], in place and in its units."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_terms(self, terms: TokenTerms) -> TokenTerms:
        """Complete columns of which each rank filled its own rows."""
        if self.world > 1:
            for column in (terms.logprobs, terms.entropy, *terms.extras.values()):
                self.sum(column)
        return terms

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients of the sum of all ranks' losses, on every rank.

        The loss of each rank is already divided by the denominator of the whole mini-batch, so the sum is the
        gradient of the whole. Those of sharded weights are sums already.
        """
        owners = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in owners:
            if parameter.grad is None:  # no row carried gradient; momentum and weight decay act all the same
                parameter.grad = torch.zeros_like(parameter)
        if self.world == 1 or any(map(is_sharded, owners)):
            return
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in owners if parameter.grad is not None])
        self.sum(flat)
        offset = 0
        for parameter in owners:
            assert parameter.grad is not None
            size = parameter.grad.numel()
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter.grad))
            offset += size

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; all ranks get the same answer."""
        return any(self.gather(flag))
