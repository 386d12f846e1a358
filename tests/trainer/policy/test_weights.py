"""Weights, configuration and tokenizer that cannot be used are found, and rightly named, before anything is queued."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import run_config
from safetensors.torch import load_file, save_file
from small_models import edit, fatal, instruct_model

from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.settings import ConfigError
from trainer.policy import weights
from trainer.policy.weights import check_weights
from trainer.setup.checks import problems

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model, to be spoilt."""
    return Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "model"))


def spoil(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def put(file: Path, name: str, value: float, place: int) -> None:
    tensors = load_file(file)
    tensors[name].view(-1)[place] = value
    save_file(tensors, file, metadata={"format": "pt"})


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda m: spoil(m / WEIGHTS, lambda data: data[:-1000]), "is cut short or padded: "),
    "cut in the header": (lambda m: spoil(m / WEIGHTS, lambda data: data[:100]), "is no safetensors file (100 bytes"),
    "empty": (lambda m: spoil(m / WEIGHTS, lambda data: b""), "is no safetensors file (0 bytes"),
    "garbage": (lambda m: spoil(m / WEIGHTS, lambda data: bytes(range(256)) * 40), "is no safetensors file"),
    "a page of HTML": (lambda m: (m / WEIGHTS).write_text("<html>404</html>"), "is no safetensors file"),
    "a pointer of git-lfs": (lambda m: (m / WEIGHTS).write_text("version https://git-lfs"), "is no safetensors file"),
    "one NaN": (lambda m: put(m / WEIGHTS, "model.norm.weight", torch.nan, 77), "model.norm.weight holds NaN or inf"),
    "one infinity": (lambda m: put(m / WEIGHTS, "model.embed_tokens.weight", -torch.inf, 5), "holds NaN or infinity"),
    "no JSON": (lambda m: (m / "config.json").write_text('{"model_type": "qwen3",'), "by its config.json: "),
    "no object": (lambda m: (m / "config.json").write_text("[]"), "by its config.json: "),
    "unknown type": (lambda m: edit(m / "config.json", model_type="nonesuch"), "by its config.json: "),
    "another width": (
        lambda m: edit(m / "config.json", hidden_size=64),
        "holds weights of another model than its config",
    ),
    "no number": (lambda m: edit(m / "config.json", hidden_size="wide"), "config.json"),
    "no heads": (lambda m: edit(m / "config.json", num_attention_heads=0), "config.json"),
    "no tokenizer": (lambda m: [file.unlink() for file in m.glob("tokenizer*")], "holds no tokenizer: copy"),
    "broken tokenizer": (lambda m: (m / "tokenizer.json").write_text("{"), "could not be loaded as a tokenizer"),
    "no end token": (lambda m: edit(m / "tokenizer_config.json", eos_token=None), "without end-of-sequence token"),
    "broken generation": (lambda m: (m / "generation_config.json").write_text("{"), "by its generation_config.json"),
    "pickled garbage": (
        lambda m: ((m / WEIGHTS).unlink(), (m / "pytorch_model.bin").write_bytes(b"x" * 99)),
        "cannot be read as PyTorch weights",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_a_model_is_said_before_anything_is_queued(model: Path, what: str) -> None:
    change, words = SPOILT[what]
    change(model)
    (sentence,) = fatal(run_config({"model.path": str(model)}))
    assert words in sentence and str(model) in sentence


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    model = instruct_model(tmp_path / "model")
    tensors = load_file(model / WEIGHTS)
    half = dict(list(tensors.items())[:5])
    save_file(half, model / "model-00001-of-00002.safetensors")
    (model / WEIGHTS).unlink()
    parts = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in tensors}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (sentence,) = fatal(run_config({"model.path": str(model)}))
    assert "lacks 1 of 2 weight files: copy model-00002-of-00002.safetensors again" in sentence
    (model / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read as the index"):
        check_weights(model)


def test_whole_models_pass_in_both_formats(model: Path, tmp_path: Path) -> None:
    assert fatal(run_config({"model.path": str(model)})) == []
    tensors = load_file(model / WEIGHTS)
    shapes = check_weights(model)
    assert shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    (model / WEIGHTS).unlink()
    torch.save(tensors, model / "pytorch_model.bin")
    assert check_weights(model) == shapes


def test_a_bias_may_bar_tokens(tmp_path: Path) -> None:
    save_file({"bias": torch.tensor([0.0, -torch.inf]), "ids": torch.tensor([2**40])}, tmp_path / WEIGHTS)
    assert check_weights(tmp_path) == {"bias": (2,), "ids": (1,)}
    save_file({"bias": torch.tensor([0.0, torch.inf])}, tmp_path / WEIGHTS)
    with pytest.raises(ConfigError, match="bias holds NaN or infinity"):
        check_weights(tmp_path)


def test_of_a_large_model_blocks_of_every_tensor_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SCAN_BYTES", 4000)
    monkeypatch.setattr(weights, "BLOCK", 100)
    for place, seen in ((50, True), (150, False), (350, True)):  # 8 KB and a header: every third block
        values = torch.zeros(2, 1000)
        values.view(-1)[place] = torch.nan
        save_file({"weight": values}, tmp_path / WEIGHTS)
        with pytest.raises(ConfigError) if seen else contextlib.nullcontext():
            check_weights(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_queued() -> None:
    (sentence,) = fatal(run_config({"hardware.device": "cuda"}))
    assert "hardware.device='cuda' cannot be used: torch sees no GPU here" in sentence
    elsewhere = problems(run_config({"hardware.device": "cuda"}), here=False)
    assert not any(problem.fatal for problem in elsewhere)
