"""The policy: loading a causal language model, and one forward pass to token statistics.

Called by ``update.py`` and ``loop.py``. It must not sample, and it must not know rewards.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from trainer.config import ConfigError, ModelConfig
from trainer.pack import micro_batches
from trainer.token_stats import token_stats
from trainer.types import TokenBatch, TokenTerms

SHIPPED_MODEL = Path(__file__).parent / "assets" / "countdown-tiny"


def model_path(config: ModelConfig) -> str:
    """Folder or hub name to load from; raises :class:`ConfigError` for a folder without weights."""
    path = config.path or str(SHIPPED_MODEL)
    folder = Path(path)
    if folder.is_dir() or path.startswith((".", "/", "~")):
        weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        if not (folder / "config.json").is_file() or not weights:
            raise ConfigError(
                f"model.path={path!r} holds no model: expected config.json and *.safetensors there; "
                "give the folder of a saved causal language model, a hub name, or null for the shipped one"
            )
    return path


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer; raises :class:`ConfigError` when it has no end-of-sequence token."""
    path = model_path(config)
    tokenizer = AutoTokenizer.from_pretrained(
        path, revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.path={path!r} has a tokenizer without end-of-sequence token, "
            "so no response could ever end: set eos_token"
        )
    return tokenizer


def load_model(config: ModelConfig) -> nn.Module:
    """The model in evaluation mode (no dropout: sampler and trainer must describe the same distribution)."""
    path = model_path(config)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            dtype=getattr(torch, config.dtype),
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.path={path!r} could not be loaded as a causal language model: {reason}") from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_head(model)
    return model.eval()


def check_head(model: nn.Module) -> None:
    """Refuse models whose logits are not ``hidden @ head.T + bias``: their token statistics would be wrong silently."""
    tokens = torch.arange(4, device=next(model.parameters()).device)[None]
    with torch.no_grad():
        hidden = _backbone(model)(input_ids=tokens, use_cache=False).last_hidden_state
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        expected = model(input_ids=tokens, use_cache=False).logits
        if not torch.allclose(head(hidden).float(), expected.float(), rtol=1e-2, atol=1e-3):
            raise ConfigError(
                f"{type(model).__name__} transforms its logits after the output layer (soft-capping or scaling), "
                "which is not supported"
            )


def _backbone(model: nn.Module) -> Any:
    return model.base_model  # transformers' own name for the network without its head


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model together with what turns its hidden states into statistics."""

    model: nn.Module
    temperature: float
    """Divides the logits, in the trainer exactly as in the sampler."""
    head_chunk: int
    micro_batch_tokens: int
    device: torch.device
    autocast_dtype: torch.dtype | None = None

    def terms(self, batch: TokenBatch, statistics: Iterable[str] = ()) -> TokenTerms:
        """One forward pass over rows on the policy's device; columns are 0 outside the mask. Differentiable where
        gradients are enabled.

        Rows are padded on the right and attention is causal, so padding cannot reach a real position and needs no mask.
        """
        autocast = (
            torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else contextlib.nullcontext()
        )
        mask = batch.mask
        with autocast:
            hidden = _backbone(self.model)(
                input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        # Rounding to the weight's dtype here is what the model's own head would do.
        picked = hidden[mask].to(head.weight.dtype)
        stats = token_stats(
            picked,
            head.weight,
            batch.targets[mask],
            bias=getattr(head, "bias", None),
            temperature=self.temperature,
            statistics=statistics,
            chunk=self.head_chunk,
        )
        full = {name: _scatter(value, mask) for name, value in stats.items()}
        return TokenTerms(logprobs=full.pop("logprobs"), entropy=full.pop("entropy"), extras=full)

    def column(self, batch: TokenBatch) -> Float[Tensor, "N T"]:
        """Zeros on the CPU, as wide as the statistics are: the same weights then give a ratio of exactly 1."""
        dtype = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        return torch.zeros(batch.mask.shape, dtype=dtype)

    @torch.no_grad()
    def measure(
        self, batch: TokenBatch, statistics: Iterable[str] = (), *, rank: int = 0, world: int = 1
    ) -> TokenTerms:
        """:meth:`terms` of every row without a graph, in micro-batches, on the CPU; with several ranks each does its
        share.

        Columns of rows that belong to other ranks are 0, so a sum over ranks completes them.
        """
        names = sorted(statistics)
        columns = {name: self.column(batch) for name in ("logprobs", "entropy", *names)}
        for index in share(batch.lengths, self.micro_batch_tokens, rank, world):
            rows = batch.rows(index).to(self.device)
            terms = self.terms(rows, names)
            width = rows.inputs.shape[1]
            for name, column in columns.items():
                value = getattr(terms, name) if name in ("logprobs", "entropy") else terms.extras[name]
                column[index, :width] = value.cpu()
        return TokenTerms(logprobs=columns.pop("logprobs"), entropy=columns.pop("entropy"), extras=columns)

    def frozen_copy(self) -> Policy:
        """The same policy with weights that will not move: the reference model."""
        model = copy.deepcopy(self.model).requires_grad_(False)
        return Policy(
            model=model,
            temperature=self.temperature,
            head_chunk=self.head_chunk,
            micro_batch_tokens=self.micro_batch_tokens,
            device=self.device,
            autocast_dtype=self.autocast_dtype,
        )


def share(lengths: Tensor, max_tokens: int, rank: int, world: int) -> list[Tensor]:
    """The micro-batches of one rank: all of them are dealt out in turn, so ranks get like amounts."""
    return [index for number, index in enumerate(micro_batches(lengths, max_tokens)) if number % world == rank]


def _scatter(values: Float[Tensor, " M"], mask: Tensor) -> Float[Tensor, "N T"]:
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
