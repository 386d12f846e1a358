"""Checks weight files without loading a model: complete, finite, with the names and shapes of ``config.json``.

It must not load a model, and must not need memory for one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.contract.settings import ConfigError

SCAN_BYTES = 4 * 2**30
"""Of larger models only evenly spaced blocks of every tensor are looked at, this much in all."""
BLOCK = 2**20
"""Numbers looked at together."""

INDEX = {"*.safetensors": "model.safetensors.index.json", "pytorch_model*.bin": "pytorch_model.bin.index.json"}


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights in ``folder``: safetensors if there are any, else PyTorch's own."""
    for pattern in INDEX:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in ``folder``.

    Raises :class:`ConfigError` for a file that is cut short or no weight file, a part that is missing, and numbers that
    are not finite.
    """
    files = weight_files(folder)
    _check_parts(folder, files)
    every = max(1, math.ceil(sum(file.stat().st_size for file in files) / SCAN_BYTES))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        for name, tensor in _tensors(file):
            shapes[name] = tuple(tensor.shape)
            if not _finite(tensor, every):
                raise ConfigError(
                    f"{file} cannot be used: {name} holds NaN or infinity, so every log-prob would be NaN; take a "
                    "checkpoint from before that"
                )
    return shapes


def _check_parts(folder: Path, files: list[Path]) -> None:
    """All parts that an index names are there."""
    for index in (folder / name for name in INDEX.values()):
        if not index.is_file():
            continue
        try:
            parts = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{index} cannot be read as the index of a model's parts: copy it again") from error
        missing = sorted(parts - {file.name for file in folder.iterdir()})
        if missing:
            raise ConfigError(f"{folder} lacks {len(missing)} of {len(parts)} weight files: copy {missing[0]} again")
        return


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and memory-mapped tensors of a file."""
    if file.suffix == ".safetensors":
        check_header(file)
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 - it is no mapping
                yield name, content.get_tensor(name)
        return
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        yield from ((name, tensor) for name, tensor in content.items() if isinstance(tensor, Tensor))
    except Exception as error:  # torch.load raises whatever its readers of zip and pickle raise
        raise ConfigError(f"{file} cannot be read as PyTorch weights: copy or download it again") from error


def check_header(file: Path) -> None:
    """Refuse a safetensors file whose header cannot be read or speaks of more, or fewer, bytes than there are."""
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(content.read(length)) if 8 < 8 + length <= size else {}
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            ends = []
    if not ends:
        raise ConfigError(f"{file} is no safetensors file ({size} bytes, no header): copy or download it again")
    expected = 8 + length + max(ends)
    if size != expected:
        raise ConfigError(
            f"{file} is cut short or padded: {size} bytes instead of {expected}; copy or download it again"
        )
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise ConfigError(f"{file} is damaged ({error}): copy or download it again") from error


def _finite(tensor: Tensor, every: int) -> bool:
    """Whether one block in ``every`` is finite. A vector may hold -inf: a bias that bars tokens."""
    if not tensor.is_floating_point():
        return True
    values = tensor.reshape(-1)
    for start in range(0, len(values), BLOCK * every):
        least, most = torch.aminmax(values[start : start + BLOCK].float())
        if math.isnan(least) or math.isinf(most) or (math.isinf(least) and tensor.ndim > 1):
            return False
    return True


def check_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights that are not those ``expected`` by the configuration beside them. Names that only one side has are
    left to the loader, which knows how they are mapped."""
    common = shapes.keys() & expected.keys()
    for name in sorted(common):
        if shapes[name] != expected[name]:
            raise ConfigError(
                f"{folder} holds weights of another model than its config.json describes: {name} is "
                f"{list(shapes[name])} in the file and {list(expected[name])} by the configuration"
            )
