"""Loading a causal language model and its tokenizer, and what is checked of them before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.contract.cache import PREFIX, how_to_get, located
from trainer.contract.config import ModelConfig
from trainer.contract.files import OutOfSpace, room_for
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.run_folder import last_checkpoint
from trainer.contract.settings import ConfigError, require
from trainer.contract.status import read_status
from trainer.policy import hub, shared_prompt
from trainer.policy.cpu_matmul import use_onednn
from trainer.policy.cpu_rms_norm import use_rms_norm
from trainer.policy.weights import weight_files

REMEDY = "; give the folder of a saved causal language model, a hub name, or null for the shipped one"
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
"""What configurations call the length of a model's context."""
UNSCALED = ("default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of rotary embedding whose configuration states the context after scaling."""


def model_path(config: ModelConfig, *, weights: bool = True) -> Path:
    """Folder to load from; a hub name is brought to this machine, with its ``weights`` or without. Of a finished run it
    is the last checkpoint.

    Raises :class:`ConfigError` for a folder that holds no model, and for what :func:`trainer.policy.hub.fetched`
    refuses.
    """
    path = config.path or str(SHIPPED_MODEL)
    folder = located(path)
    if (folder / "run.yaml").is_file():
        folder = _end_of_run(path, folder)
    if not folder.is_dir() and path.startswith(PREFIX):
        raise ConfigError(f"model.path={path!r} is not there{how_to_get(path)}")
    if not folder.is_dir() and not path.startswith((".", "/", "~")):
        return hub.fetched(path, config.revision, weights=weights)
    if not (folder / "config.json").is_file() or not weight_files(folder):
        raise ConfigError(f"model.path={path!r} holds no model: expected config.json and *.safetensors there{REMEDY}")
    return folder


def _end_of_run(path: str, folder: Path) -> Path:
    """The last checkpoint of a run that has ended: of one that goes on it would be another tomorrow."""
    status, checkpoint = read_status(folder), last_checkpoint(folder)
    if checkpoint is None:
        raise ConfigError(f"model.path={path!r} is a run without a checkpoint: give one that has saved one")
    if status is None or status.state != "COMPLETED":
        raise ConfigError(
            f"model.path={path!r} is a run that is {status.state if status else 'not started'}: let it finish, or give "
            f"one of its checkpoints, such as {checkpoint}"
        )
    return checkpoint


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """The model's configuration; raises :class:`ConfigError` when it cannot be read."""
    loaded: PreTrainedConfig = _loaded(AutoConfig, config, "by its config.json", weights=False)
    return loaded


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer; raises :class:`ConfigError` when there is none or it has no end-of-sequence token."""
    folder = model_path(config, weights=False)
    if not _has_tokenizer(folder):
        raise ConfigError(
            f"model.path={str(config.path or folder)!r} holds no tokenizer: copy tokenizer.json and "
            "tokenizer_config.json of the model it was made from beside its weights"
        )
    tokenizer: PreTrainedTokenizerBase = _loaded(AutoTokenizer, config, "as a tokenizer", weights=False)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.path={str(config.path or folder)!r} has a tokenizer without end-of-sequence token, "
            "so no response could ever end: set eos_token"
        )
    if config.pad_token is not None:
        _token_id(tokenizer, config.pad_token, "model.pad_token")
        tokenizer.pad_token = config.pad_token
    return tokenizer


def _token_id(tokenizer: PreTrainedTokenizerBase, text: str, key: str) -> int:
    """The id of a token that a setting names; raises :class:`ConfigError` where the vocabulary has none."""
    found = tokenizer.get_vocab().get(text)
    require(found is not None, key, text, "the model's vocabulary has no such token: write it as tokenizer.json does")
    return int(found or 0)


def end_tokens(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: those of the tokenizer, the configuration and the generation configuration, and
    ``model.end_tokens``, sorted.

    An instruct model often ends its turns with another token than its base model ended texts with, and says so in one
    of the three only.
    """
    stated: list[Any] = [tokenizer.eos_token_id, load_config(config).get_text_config().eos_token_id]
    if (model_path(config, weights=False) / "generation_config.json").is_file():
        generation: GenerationConfig = _loaded(GenerationConfig, config, "by its generation_config.json", weights=False)
        stated.append(generation.eos_token_id)
    stated.append([_token_id(tokenizer, text, "model.end_tokens") for text in config.end_tokens])
    each = [one for value in stated for one in (value if isinstance(value, list | tuple) else [value])]
    return tuple(sorted({int(one) for one in each if one is not None and int(one) >= 0}))


def context_length(config: PreTrainedConfig) -> int | None:
    """Longest sequence the model knows positions for, tokens, as vLLM derives it; None where nothing says so."""
    text = config.get_text_config()
    stated = [value for key in CONTEXT_KEYS if isinstance(value := getattr(text, key, None), int) and value > 0]
    if not stated:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    scaled = rope.get("rope_type", "default") not in UNSCALED and "gemma3" not in config.model_type
    return int(min(stated) * (rope.get("factor") or 1.0 if scaled else 1.0))


def _has_tokenizer(folder: Path) -> bool:
    """Without any of these files transformers makes an empty tokenizer, or asks for other packages."""
    patterns = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "*.py")
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _loaded(kind: Any, config: ModelConfig, role: str, *, weights: bool = True, **options: Any) -> Any:
    """``kind`` from the model's folder. Its code may be kept on disk first, so a full one is not the path's fault."""
    folder = model_path(config, weights=weights)
    trust = {} if kind is GenerationConfig else {"trust_remote_code": config.trust_remote_code}
    try:
        with room_for(Path(HF_HUB_CACHE)):
            return kind.from_pretrained(folder, **trust, **options)
    except (OutOfSpace, MemoryError):
        raise
    except Exception as error:  # readers of a dozen formats, each with errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        path = config.path or str(folder)
        raise ConfigError(f"model.path={path!r} could not be loaded {role}: {reason}") from error


def load_model(config: ModelConfig) -> nn.Module:
    """The model in evaluation mode (no dropout: sampler and trainer must describe the same distribution)."""
    dtype = getattr(torch, config.dtype)
    role = "as a causal language model"
    own: dict[str, Any] = {"attn_implementation": config.attention} if config.attention else {}
    model, found = _loaded(AutoModelForCausalLM, config, role, dtype=dtype, output_loading_info=True, **own)
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"model.path={config.path!r} holds no weights for {len(missing)} tensors of {type(model).__name__}, which "
            f"would be random: the first is {missing[0]}; give the folder of a whole model"
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_head(model)
    model = use_rms_norm(use_onednn(model)).eval()
    for block in model.modules():
        if isinstance(block, GradientCheckpointingLayer):
            # Blocks recompute in training mode only, and have no dropout of their own; what is in them stays in
            # evaluation mode.
            block.training = config.gradient_checkpointing
    return model


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
    """Switch the model to the attention of ``shared_prompt.py`` if that gives what its own gives; whether it did.

    Two rows with a common prompt are compared. A model whose attention takes settings that ours does not know (a
    sliding window, a soft cap) keeps its own.
    """
    own: str = model.config._attn_implementation  # type: ignore[union-attr, assignment]
    device = next(model.parameters()).device
    rows = torch.arange(14, device=device).view(2, 7) % 11
    rows[1, :4] = rows[0, :4]
    lengths = torch.tensor([7, 6], device=device)
    packed = shared_prompt.pack_tokens(rows, lengths, torch.full_like(lengths, 4))
    with torch.no_grad():
        expected = backbone(model)(input_ids=rows, use_cache=False).last_hidden_state
        try:
            model.set_attn_implementation(shared_prompt.NAME)  # type: ignore[operator]
            hidden = shared_prompt.hidden_states(backbone(model), packed)
        except (ValueError, TypeError, AttributeError):
            same = False
        else:
            found = hidden[packed.rows].float()
            same = all(_same(found[i, :n], expected[i, :n]) for i, n in enumerate(lengths.tolist()))
    if not same:
        model.set_attn_implementation(own)  # type: ignore[operator]
    return same


def _same(found: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding. Of 16 bits a single number may lose all its digits, so there the whole has to agree."""
    if expected.dtype not in (torch.bfloat16, torch.float16):
        return torch.allclose(found, expected.float(), rtol=1e-2, atol=1e-3)
    return bool((found - expected.float()).norm() <= 0.05 * expected.float().norm())


def backbone(model: nn.Module) -> Any:
    """The network without its head, under transformers' own name."""
    return model.base_model
