"""The files of a checkpoint that hold tensors: one of weights and one of the optimiser or, of weights that are shared
out over ranks, one of each for every rank, written by all of them at once.

The names and the index are those of transformers (``model-00001-of-00002.safetensors``), so it loads either,
as vLLM does.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_map

from trainer.contract.files import persist
from trainer.runtime.ranks import Ranks
from trainer.storage.manifest import Entry, entry

WEIGHTS, OPTIMIZER, INDEX = "model.safetensors", "optimizer.pt", "model.safetensors.index.json"


def part_file(name: str, ranks: Ranks) -> str:
    """The name of this rank's part of a file, ``name`` itself where there is one rank."""
    stem, _, suffix = name.partition(".")
    return name if ranks.world == 1 else f"{stem}-{ranks.rank + 1:05d}-of-{ranks.world:05d}.{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one rank has written."""

    files: dict[str, Entry]
    weights: dict[str, tuple[str, int]]
    """Name of a stored tensor -> its file and its bytes."""
    aliases: dict[str, str]
    """Other names of tied weights, and what they stand for."""


def write_part(
    folder: Path,
    ranks: Ranks,
    model_state: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    tied: Collection[str],
) -> Written:
    """Write this rank's tensors [any shape], in their own units, and flush them to the disk.

    Each is stored once: of names for one tensor the first, but one of ``tied`` only if there is no other.
    """
    stored, aliases = _once(model_state, tied)
    weights, optimizer = part_file(WEIGHTS, ranks), part_file(OPTIMIZER, ranks)
    write_tensors(folder / weights, stored)
    _write_optimizer(folder / optimizer, dict(optimizer_state))
    return Written(
        files={name: entry(folder / name) for name in (weights, optimizer)},
        weights={name: (weights, tensor.nbytes) for name, tensor in stored.items()},
        aliases=aliases,
    )


def write_index(folder: Path, written: Sequence[Written]) -> None:
    """Write, where there are several files of weights, the index by which transformers and vLLM find a tensor."""
    if len(written) == 1:
        return
    weights = {name: place for part in written for name, place in part.weights.items()}
    index = {
        "metadata": {"total_size": sum(size for _, size in weights.values())},
        "weight_map": {name: file for name, (file, _) in sorted(weights.items())},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    persist(folder / INDEX)


def weight_files(names: Collection[str]) -> list[str]:
    """Those of a checkpoint's files that hold weights, in order."""
    return sorted(name for name in names if name.endswith(".safetensors"))


def read_weights(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """All weights [any shape], dimensionless, of the files ``names``, on the CPU."""
    return {name: tensor for file in weight_files(names) for name, tensor in load_file(folder / file).items()}


def read_optimizer(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """The optimiser's state, put together from the parts among the files ``names``, on the CPU."""
    files = sorted(name for name in names if name.endswith(".pt"))
    parts = [torch.load(folder / file, map_location="cpu", weights_only=True) for file in files]
    whole: dict[str, Any] = parts[0] if len(parts) == 1 else tree_map(_only, *parts)
    return whole


def _only(*values: Any) -> Any:
    """The value of the part that has it."""
    return next((value for value in values if value is not None), None)


def _once(model_state: Mapping[str, Tensor], tied: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor [any shape], dimensionless, once; and the other names of tied weights with what they stand for."""
    names: dict[tuple[object, ...], str] = {}
    aliases: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in sorted(model_state.items(), key=lambda item: (item[0] in tied, item[0])):
        view = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if view in names:
            aliases[name] = names[view]
            continue
        names[view] = name
        is_whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        tensors[name] = tensor.detach() if is_whole else tensor.detach().clone(memory_format=torch.contiguous_format)
    return tensors, aliases


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Tensors [any shape], dimensionless, as a safetensors file like that of transformers, but with the permissions
    that any new file gets (its own are 0600)."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if "os error 28" in str(error) or "os error 122" in str(error):  # ENOSPC and EDQUOT, spelt by its Rust half
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    path.chmod(mode)


class _Writer:
    """The file handed to torch.save. Remembers why a write failed, because torch.save's own exception does not say.

    Only the number is kept: torch.save never lets go of this object, which must not hold on to the frames of an error.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.errno = 0

    def write(self, data: bytes) -> int:
        if not self.errno:
            try:
                self.file.write(data)
            except OSError as error:
                self.errno = error.errno or errno.EIO
        return len(data)

    def flush(self) -> None:
        """Asked for by torch.save; closing the file flushes it."""


def _write_optimizer(path: Path, optimizer_state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        writer = _Writer(file)
        torch.save(optimizer_state, cast(IO[bytes], writer))
    if writer.errno:
        raise OSError(writer.errno, os.strerror(writer.errno))
