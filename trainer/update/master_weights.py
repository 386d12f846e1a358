"""Float32 master weights of a model whose own weights have 16 bits (see ``policy/precision.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.runtime.sharding import part_of

NAME = "master_weights"
"""Of their entry in the optimiser's part of a checkpoint."""


class MasterWeights:
    """What the optimiser moves in place of parameters of 16 bits; any other parameter is its own master.

    Gradients are added up in float32: as soon as a backward pass has completed the gradient of a parameter, it is added
    to its master's and dropped, so the sum over micro-batches does not lose the small ones.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] = ()) -> None:
        self._masters: dict[nn.Parameter, nn.Parameter] = {}
        self._owners = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in self._owners:
            if parameter.dtype in (torch.bfloat16, torch.float16):
                self._masters[parameter] = nn.Parameter(parameter.detach().float())
                parameter.register_post_accumulate_grad_hook(self._collect)

    def __getitem__(self, parameter: nn.Parameter) -> nn.Parameter:
        return self._masters.get(parameter, parameter)

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser is given, in the order of the model's parameters."""
        return [self[parameter] for parameter in self._owners]

    def _collect(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None
        master = self._masters[parameter]
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    @torch.no_grad()
    def write(self) -> None:
        """Round the masters into the model, after an optimiser step."""
        for parameter, master in self._masters.items():
            parameter.copy_(master)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model and the optimiser: nothing where every master is the weight
        itself."""
        return {NAME: [master.detach() for master in self._masters.values()]} if self._masters else {}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        for master, saved in zip(self._masters.values(), state.get(NAME, ()), strict=True):
            master.copy_(part_of(saved, master))
