"""The size of a language model, from ``config.json`` and the headers of its weight files, without importing torch.

An unreadable model has no size here; the trainer's check reports what is wrong with it.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.memory.shape import KNOWN, ModelShape, shape_of
from trainer.contract.cache import located
from trainer.contract.paths import SHIPPED_MODEL
from trainer.contract.run_folder import last_checkpoint

MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit for a header, bytes; a longer one means that the file is no safetensors file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A model's numbers."""

    parameters: int
    shape: ModelShape = field(default_factory=ModelShape)


def model_size(path: str | None) -> ModelSize | None:
    """The size of the model in a folder (None: the shipped one); None for a hub name or an unreadable folder.

    A hub name is not looked up in the local cache: a run's configuration must not depend on the machine's files.
    """
    if path is None:
        return _measured(str(SHIPPED_MODEL))
    folder = located(path)
    return _measured(str(last_checkpoint(folder) or folder))


def planned_size(path: str | None, revision: str | None = None) -> ModelSize | None:
    """:func:`model_size`, and also that of a hub name: a model of ``conf/model``, or one whose ``config.json`` is in
    the hub's cache. For plans, which may depend on the machine; None where nothing is known."""
    size = model_size(path)
    if size is not None or path is None or located(path).exists():
        return size
    shape = KNOWN.get(path) if revision is None else None
    return ModelSize(parameters=shape.parameters, shape=shape) if shape else _cached(path, revision)


@functools.cache
def _cached(name: str, revision: str | None) -> ModelSize | None:
    from huggingface_hub import try_to_load_from_cache  # only here, because importing it takes time
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        shape = shape_of(json.loads(Path(found).read_text(encoding="utf-8"))) if isinstance(found, str) else None
    except (HFValidationError, OSError, ValueError, TypeError, AttributeError):
        return None
    return ModelSize(parameters=shape.parameters, shape=shape) if shape else None


@functools.cache
def _measured(folder: str) -> ModelSize | None:
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        shape = shape_of(config)
        files = sorted(Path(folder).glob("*.safetensors"))
        parameters = sum(map(_in_header, files)) or _in_pickles(Path(folder), config.get("text_config") or config)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return ModelSize(parameters=parameters, shape=shape) if parameters else None


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
