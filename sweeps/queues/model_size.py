"""The size of a language model, from ``config.json`` and the headers of its weight files, without importing torch.

An unreadable model has no size here; the trainer's check reports what is wrong with it.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.contract.cache import located
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.run_folder import last_checkpoint

MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit for a header, bytes; a longer one means that the file is no safetensors file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Dimensions of a model; the defaults stand for those that its ``config.json`` does not name."""

    parameters: int
    hidden: int = 4096
    """Width of a layer."""
    layers: int = 32
    vocabulary: int = 152_000


def model_size(path: str | None) -> ModelSize | None:
    """The size of the model in a folder (None: the shipped one); None for a hub name or an unreadable folder.

    A hub name is not looked up in the local cache: a run's configuration must not depend on the machine's files.
    """
    if path is None:
        return _measured(str(SHIPPED_MODEL))
    folder = located(path)
    return _measured(str(last_checkpoint(folder) or folder))


@functools.cache
def _measured(folder: str) -> ModelSize | None:
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        files = sorted(Path(folder).glob("*.safetensors"))
        parameters = sum(map(_in_header, files)) or _in_pickles(Path(folder), text)
        known = {name: int(text[key]) for name, key in _KEYS.items() if text.get(key)}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return ModelSize(parameters=parameters, **known) if parameters else None


_KEYS = {"hidden": "hidden_size", "layers": "num_hidden_layers", "vocabulary": "vocab_size"}
"""Names in transformers' ``config.json``."""


def _in_header(path: Path) -> int:
    """Parameters in a safetensors file: 8 bytes of length, then JSON with the shape of every tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path} has no header")
        header: dict[str, Any] = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _in_pickles(folder: Path, config: dict[str, Any]) -> int:
    """Parameters in ``*.bin`` files, from file size and dtype, because exact numbers would need unpickling."""
    narrow = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.") in ("bfloat16", "float16")
    return sum(path.stat().st_size for path in folder.glob("*.bin")) // (2 if narrow else 4)
