"""Weights shared out over the ranks (``hardware.sharding=fsdp2``), by PyTorch's FSDP2.

Every rank keeps its part of each weight, of its gradient, its master and its moments. A decoder block is whole only
while it computes, forward or backward; what lies outside the blocks (embedding, last norm, output layer) only within a
call of :class:`Root`. ``fully_shard`` is used without accelerate: its plugin shards on GPUs only, and around
``model.forward``, which nothing here calls. Source: Zhao et al., arXiv 2304.11277.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map
from transformers.modeling_layers import GradientCheckpointingLayer

Result = TypeVar("Result")


class Root(nn.Module):
    """What owns a sharded model's weights outside of its blocks, and has them whole while it is called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Result]) -> Result:
        """``compute()``, whose differentiable tensors may be in a dataclass, dictionary or list."""
        return compute()


def shard(model: nn.Module, device: torch.device, *, offload: bool = False) -> Root:
    """Leave on each rank its part of the weights of ``model``, on ``device`` or, with ``offload``, in the memory of its
    host, where gradients, masters and moments then are too. Gradients are added up over ranks, in float32 at least: the
    loss of each is divided by the denominator of the whole mini-batch already.

    All ranks have to make the same calls of the root, in the same order, and as many backward passes.
    """
    root, mesh = Root(model), init_device_mesh(device.type, (dist.get_world_size(),))
    sums = MixedPrecisionPolicy(reduce_dtype=torch.promote_types(next(model.parameters()).dtype, torch.float32))
    place = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*blocks, root):
        # The root too gives its weights up after its call: kept, they would be stale after the next update.
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=sums, offload_policy=place)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    return root


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has only its part of the tensor [any shape], in any units."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor [any shape]: that of the whole, in its units; every rank has to ask for it."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full.detach()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What this rank keeps of a whole ``tensor`` [any shape], in its units, if it is laid out as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor
    own = tensor.to(like.to_local().device)
    return distribute_tensor(own, like.device_mesh, like.placements, src_data_rank=None)


def shared_out(state: Any, rank: int, world: int) -> Any:
    """Nested ``state`` with what this rank stores of it, and None in place of what others do: each sharded tensor [any
    shape], in its units, whole and on the CPU, by the rank that has the fewest bytes until then; the rest by the first.

    They are put together one at a time. Every rank has to ask for it.
    """
    found: dict[int, Tensor | None] = {}  # a tied weight is there twice
    taken = [0] * world

    def one(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value if rank == 0 else None
        if id(value) not in found:
            owner = taken.index(min(taken))
            taken[owner] += value.numel() * value.element_size()
            full = whole(value)
            found[id(value)] = full.cpu() if owner == rank else None
        return found[id(value)]

    return tree_map(one, state)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole ``weights`` [any shape], dimensionless, by name, into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict(
        {name: part_of(value, own[name]) if name in own else value for name, value in weights.items()}
    )
