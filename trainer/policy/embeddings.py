"""Embeddings of prompts by the model itself: the mean of its last hidden states. Computed once, cached on disk.

Every random state stays unchanged, so that a run with cached embeddings is the same run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contract.cache import cache_folder
from trainer.contract.config import ModelConfig
from trainer.contract.files import alone, make_folder, write_atomic
from trainer.policy.model import backbone, context_length, load_config, load_model, model_path
from trainer.policy.weights import weight_files

VERSION = "mean of the last hidden states, 1"
"""Changes with whatever changes the embedding of the same tokens."""
DIGITS = 4
"""Decimals kept, in units of the root mean square of all numbers: the last bits differ between machines."""
BATCH_TOKENS = 16384
"""Positions in one forward pass."""

log = logging.getLogger(__name__)


def prompt_embeddings(config: ModelConfig, tokens: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
    """Embedding [P, F] of each prompt, given as token ids:

        e_p = mean over the prompt's positions t of h_{p,t},    rounded to 1e-4 of the root mean square of all of e

    with h the last hidden states (after the final norm), the model as ``config`` loads it. Prompts are cut to the
    model's context. From the cache where the same weights have seen the same prompts. Source: arXiv 2511.05993,
    training data diversity ("mean-pooled last-layer embeddings").
    """
    content = hashlib.sha256(f"{VERSION}\n{config.dtype}\n{_content(model_path(config))}\n".encode())
    for each in tokens:
        content.update(np.asarray([len(each), *each], dtype="<i8").tobytes())
    return cached("embeddings", content.hexdigest()[:32], lambda: _embedded(config, tokens))


def cached(kind: str, key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array of this ``key`` in the user's cache; made, and kept there, where it is not yet. Processes that ask at
    once wait for the first. Without a cache to write to it is made anew."""
    path = cache_folder() / kind / f"{key}.npy"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(make_folder(path.parent) / f".{key}.lock"))
        except OSError as error:
            log.warning("%s of prompts are not kept: %s", kind, error)
            return make()
        embeddings = _read(path)
        if embeddings is None:
            log.info("%s of prompts are made and kept in %s", kind, path)
            embeddings = make()
            written = io.BytesIO()
            np.save(written, embeddings, allow_pickle=False)
            write_atomic(path, written.getvalue())
        return embeddings


def _read(path: Path) -> NDArray[Any] | None:
    """The array of a file; None where there is none, or only a damaged one."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array


def _content(folder: Path) -> str:
    """A digest of the model's files that its hidden states depend on."""
    files = [folder / "config.json", *weight_files(folder), *sorted(folder.glob("*.py"))]
    stats = [path.stat() for path in files]
    return _digest(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, stats, strict=True)))


@functools.lru_cache(maxsize=8)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 over names and contents; sizes and times only say whether a file is still the one that was read."""
    total = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            total.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _embedded(config: ModelConfig, tokens: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    longest = context_length(load_config(config))
    with torch.random.fork_rng(), torch.no_grad():
        network = backbone(load_model(config).to(device))
        means: dict[int, Tensor] = {}
        for rows in _batches([min(len(each), longest or len(each)) for each in tokens]):
            lengths = torch.tensor([min(len(tokens[row]), longest or len(tokens[row])) for row in rows])
            mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
            ids = torch.zeros(mask.shape, dtype=torch.long)
            for place, row in enumerate(rows):
                ids[place, : lengths[place]] = torch.tensor(tokens[row][: int(lengths[place])])
            found = network(
                input_ids=ids.to(device), attention_mask=mask.long().to(device), use_cache=False
            ).last_hidden_state
            hidden = found.float().cpu() * mask[:, :, None]
            means |= dict(zip(rows, hidden.sum(1) / lengths[:, None], strict=True))
    embeddings = torch.stack([means[row] for row in range(len(tokens))]).double().numpy()
    scale = np.sqrt(np.mean(embeddings**2)) or 1.0
    return np.asarray(np.round(embeddings / scale, DIGITS), dtype=np.float32)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of prompts, of like length together, of at most :data:`BATCH_TOKENS` positions with their padding."""
    rows: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if rows and lengths[index] * (len(rows) + 1) > BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(index)
    if rows:
        yield rows
