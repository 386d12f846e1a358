"""Loading a causal language model and its tokenizer, and what is checked of them before anything is trained.

Called by ``session.py`` and, for the checks before queuing, by ``compatibility.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from trainer import packed
from trainer.config import SHIPPED_MODEL, ConfigError, ModelConfig
from trainer.contract.files import OutOfSpace, room_for
from trainer.norm import use_rms_norm
from trainer.onednn import use_onednn


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
    tokenizer: PreTrainedTokenizerBase = _loaded(AutoTokenizer, path, config, "as a tokenizer")
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.path={path!r} has a tokenizer without end-of-sequence token, "
            "so no response could ever end: set eos_token"
        )
    return tokenizer


def _loaded(kind: Any, path: str, config: ModelConfig, role: str, **options: Any) -> Any:
    """``kind`` from the path; what the hub sends is kept on disk first, so a full one is not the path's fault."""
    try:
        with room_for(Path(HF_HUB_CACHE)):
            return kind.from_pretrained(
                path, revision=config.revision, trust_remote_code=config.trust_remote_code, **options
            )
    except OutOfSpace:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.path={path!r} could not be loaded {role}: {reason}") from error


def load_model(config: ModelConfig) -> nn.Module:
    """The model in evaluation mode (no dropout: sampler and trainer must describe the same distribution)."""
    path = model_path(config)
    dtype = getattr(torch, config.dtype)
    model: Any = _loaded(AutoModelForCausalLM, path, config, "as a causal language model", dtype=dtype)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_head(model)
    return use_rms_norm(use_onednn(model)).eval()


def check_head(model: nn.Module) -> None:
    """Refuse models whose logits are not ``hidden @ head.T + bias``: their token statistics would be wrong silently."""
    tokens = torch.arange(4, device=next(model.parameters()).device)[None]
    with torch.no_grad():
        hidden = backbone(model)(input_ids=tokens, use_cache=False).last_hidden_state
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        expected = model(input_ids=tokens, use_cache=False).logits
        if not torch.allclose(head(hidden).float(), expected.float(), rtol=1e-2, atol=1e-3):
            raise ConfigError(
                f"{type(model).__name__} transforms its logits after the output layer (soft-capping or scaling), "
                "which is not supported"
            )


def share_prompts(model: nn.Module) -> bool:
    """Switch the model to the attention of ``packed.py`` if that gives what its own gives; whether it did.

    Two rows with a common prompt are compared. A model whose attention takes settings that ours does not know (a
    sliding window, a soft cap) keeps its own.
    """
    own: str = model.config._attn_implementation  # type: ignore[union-attr, assignment]
    device = next(model.parameters()).device
    rows = torch.arange(14, device=device).view(2, 7) % 11
    rows[1, :4] = rows[0, :4]
    lengths = torch.tensor([7, 6], device=device)
    line = packed.line_of(rows, lengths, torch.full_like(lengths, 4))
    with torch.no_grad():
        expected = backbone(model)(input_ids=rows, use_cache=False).last_hidden_state
        try:
            model.set_attn_implementation(packed.NAME)  # type: ignore[operator]
            hidden = packed.hidden_states(backbone(model), line)
        except (ValueError, TypeError, AttributeError):
            same = False
        else:
            found = hidden[line.rows].float()
            same = all(
                torch.allclose(found[i, :n], expected[i, :n].float(), rtol=1e-2, atol=1e-3)
                for i, n in enumerate(lengths.tolist())
            )
    if not same:
        model.set_attn_implementation(own)  # type: ignore[operator]
    return same


def backbone(model: nn.Module) -> Any:
    """The network without its head, under transformers' own name."""
    return model.base_model
