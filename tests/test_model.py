"""Loading: what is wrong with a path is a sentence, what is wrong with the disk is not blamed on the path."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import transformers

from trainer.config import ConfigError, ModelConfig
from trainer.contract.files import OutOfSpace
from trainer.model import load_model, load_tokenizer

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
    "error", [OSError("no such name on the hub\nand more"), ValueError("needs its own code\nand more")]
)
def test_what_cannot_be_loaded_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    failing(monkeypatch, name, error)
    with pytest.raises(ConfigError, match=r"model\.path='own/model' could not be loaded as a ") as refusal:
        LOADERS[name](ModelConfig(path="own/model"))
    assert str(error).splitlines()[0] in str(refusal.value) and "\n" not in str(refusal.value)
