"""A LoRA adapter on a frozen model: ``(W + (alpha / r) B A) x`` in place of ``W x`` in its linear layers.

``A`` [r, in] is drawn, ``B`` [out, r] begins at 0, so that training starts from the model itself. Both are float32 at
least. Source: Hu et al., arXiv 2106.09685; the layers are peft's. Whoever samples or stores weights gets them merged,
under the names of the model without adapter, and without the network on prompts (``prompt_head.py``). A model that has
neither passes through all of this unchanged.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError, require
from trainer.policy import prompt_head
from trainer.policy.cpu_matmul import use_onednn
from trainer.runtime.sharding import load_weights

ADAPTER = "default"
"""peft's name of the one adapter."""
NAME = "adapter"
"""Of its entry in the optimiser's part of a checkpoint, and of its folder there."""


def targets(model: nn.Module, config: ModelConfig) -> list[str]:
    """Names of the linear layers that get an adapter. Raises :class:`ConfigError` for a name that no layer of
    the model has."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head)
    known = sorted({name.rpartition(".")[2] for name in linear})
    for name in config.lora_targets:
        remedy = f"choose among the linear layers of this model: {', '.join(known)}"
        require(name in known, "model.lora_targets", name, remedy)
    return list(config.lora_targets) or known


def add_adapter(model: nn.Module, config: ModelConfig, seed: int) -> nn.Module:
    """Freeze ``model`` and give it the adapter that ``config`` describes, drawn from ``seed``; returns ``model``. With
    ``lora_rank=0`` nothing happens."""
    if not config.lora_rank:
        return model
    from peft import LoraConfig, inject_adapter_in_model  # only here, because it takes seconds

    described = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        target_modules=targets(model, config),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(described, model, ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_adapter(name))
        if _is_adapter(name):
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    return use_onednn(model)


def _is_adapter(name: str) -> bool:
    return f".{ADAPTER}.weight" in name and ".lora_" in name


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name and tensor (``A`` [r, in], ``B`` [out, r], dimensionless) of the adapter's weights; empty without one."""
    return {name: weight.detach() for name, weight in model.named_parameters() if _is_adapter(name)}


@torch.no_grad()
def merged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor [any shape], dimensionless, of the weights of a plain model that computes the same.

    The product is added in float32 at least and then rounded to the model's type, one tensor at a time. A tied output
    layer is named twice, as in a state dict, and is the same object. Of sharded weights it is this rank's parts.
    """
    weights = model.state_dict(keep_vars=True)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "base_layer")}
    for name, tensor in weights.items():
        if _is_adapter(name) or prompt_head.is_head(name):
            continue
        path, found, rest = name.rpartition(".base_layer.")
        layer: Any = layers.get(path) if found else None
        if layer is not None and rest == "weight":
            product = layer.lora_B[ADAPTER].weight @ layer.lora_A[ADAPTER].weight * layer.scaling[ADAPTER]
            tensor = (tensor.to(product.dtype) + product).to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor


@contextlib.contextmanager
def in_place(model: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Let ``model`` compute with other adapter weights, each [any shape] of its parameter, dimensionless, by name;
    None: with its own."""
    own = {name: parameter for name, parameter in model.named_parameters() if name in (weights or {})}
    kept = {name: parameter.data for name, parameter in own.items()}
    try:
        for name, parameter in own.items():
            parameter.data = (weights or {})[name].to(parameter.device)
        yield
    finally:
        for name, parameter in own.items():
            parameter.data = kept[name]


def state(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint needs beside the merged weights: nothing without an adapter."""
    weights = adapter_weights(model)
    return {NAME: weights} if weights else {}


@torch.no_grad()
def resume(model: nn.Module, weights: Mapping[str, Tensor], kept: Mapping[str, Any]) -> None:
    """Take back what :func:`merged` and :func:`state` gave, each [any shape], dimensionless.

    Of a model with an adapter only the adapter is: its frozen weights come from where they came from at the start.
    Raises :class:`ConfigError` if those that the adapter does not touch are no longer the same.
    """
    own = adapter_weights(model)
    if not own:
        load_weights(model, {**weights, **prompt_head.head_weights(model)})
        return
    for name, tensor in model.state_dict().items():
        if name in weights and not torch.equal(tensor.cpu(), weights[name]):
            raise ConfigError(
                f"the base model has changed since this run began ({name} differs from the checkpoint's): put back "
                "what model.path named, or start the run anew"
            )
    for name, tensor in own.items():
        tensor.copy_(kept[NAME][name])


def adapter_files(model: nn.Module, base: str) -> dict[str, bytes]:
    """The adapter alone, as peft and vLLM read it: files by their path in a folder; none without an adapter. ``base``
    is the folder or hub name of the model that it belongs to."""
    weights = adapter_weights(model)
    if not weights:
        return {}
    settings: Any = model.peft_config
    described = settings[ADAPTER].to_dict() | {"base_model_name_or_path": base}
    tensors = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": value for name, value in weights.items()}
    text = json.dumps(described, indent=2, sort_keys=True, default=sorted)
    return {f"{NAME}/adapter_config.json": text.encode(), f"{NAME}/adapter_model.safetensors": save(tensors)}
