"""Loading: what is wrong with a path is a sentence, what is wrong with the disk is not blamed on the path."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig, MambaConfig

from trainer.contract.config import ModelConfig
from trainer.contract.files import OutOfSpace
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.settings import ConfigError
from trainer.policy.model import context_length, load_model, load_tokenizer
from trainer.setup.examine import require_attention

LOADERS = {"AutoTokenizer": load_tokenizer, "AutoModelForCausalLM": load_model}


def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(getattr(transformers, name), "from_pretrained", fail)


@pytest.mark.parametrize("name", LOADERS)
def test_a_disk_that_is_full_while_loading_is_no_bad_configuration(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    failing(monkeypatch, name, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OutOfSpace, match="no space left to write"):
        LOADERS[name](ModelConfig())


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "error",
    [
        OSError("no such file\nand more"),
        ValueError("needs its own code\nand more"),
        KeyError("x"),
        RuntimeError("size"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, error: Exception
) -> None:
    failing(monkeypatch, name, error)
    model = shutil.copytree(SHIPPED_MODEL, tmp_path / "model")
    with pytest.raises(ConfigError, match=f"model.path='{model}' could not be loaded as a ") as refusal:
        LOADERS[name](ModelConfig(path=str(model)))
    assert str(error).splitlines()[0] in str(refusal.value) and "\n" not in str(refusal.value)


def test_weights_that_are_missing_are_refused_instead_of_made_up(tmp_path: Path) -> None:
    model = Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"no weights for 1 tensors of Qwen3ForCausalLM.*model\.norm\.weight"):
        load_model(ModelConfig(path=str(model)))


def test_attention_is_as_chosen_and_a_kernel_that_is_not_here_is_refused() -> None:
    model: Any = load_model(ModelConfig(attention="eager"))
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match=r"model\.attention='flash' cannot be used: choose eager"):
        ModelConfig(attention="flash")
    with pytest.raises(ConfigError, match="the package flash_attn is not installed here"):
        require_attention(ModelConfig(attention="flash_attention_2"))


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 256),
        ({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 128),
    ],
)
def test_the_context_is_what_vllm_derives(settings: dict[str, Any], length: int) -> None:
    assert context_length(LlamaConfig(**settings)) == length
    assert context_length(GPT2Config(n_positions=32)) == 32
    assert context_length(MambaConfig()) is None
