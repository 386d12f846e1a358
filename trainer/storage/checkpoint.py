"""Checkpoints: written atomically, checksummed, the last few kept, never unpickled.

``checkpoints/step-000020/`` holds model.safetensors, optimizer.pt, state.json and, written last, manifest.json; with
the model's own files beside them (``export.py``) it is a folder that transformers loads. Weights that are shared out
over ranks are in a file of each (``parts.py``). Must not decide when to
save, and must never remove the newest good checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.contract.files import make_folder, persist, room_for
from trainer.contract.settings import ConfigError
from trainer.runtime.ranks import Ranks
from trainer.storage.manifest import DamagedCheckpoint, entry, read_manifest, verified, write_manifest
from trainer.storage.parts import read_optimizer, read_weights, write_index, write_part

STATE = "state.json"

TEMPORARY = ".tmp-"
"""Prefix of folders that are being written or removed; swept away at the next save."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What :func:`save` was given, on the CPU, bit for bit."""

    step: int
    model_state: dict[str, Tensor]
    optimizer_state: dict[str, Any]
    state: dict[str, Any]
    path: Path


def save(
    folder: Path,
    step: int,
    *,
    model_state: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    state: Mapping[str, Any],
    signature: str,
    keep: int,
    tied: Collection[str] = (),
    described: Mapping[str, bytes] | None = None,
    record: Mapping[str, Any] | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 (it is frozen)
) -> Path:
    """Write ``folder/step-<step>`` atomically, then prune to the newest ``keep``; returns its path.

    ``model_state``: weights [any shape], dimensionless. Of names for one tensor the first is stored, but one of
    ``tied`` only if there is no other: loaders leave these out. ``described`` are files to put beside the weights, by
    path. ``state`` is JSON (its keys are strings, its tuples come back as lists); ``record`` is the extent of the
    record that it builds on. Raises :class:`trainer.contract.files.OutOfSpace` on a full disk; no earlier one is lost.

    Of several ranks every one calls this, each with tensors of its own (``optimizer_state``: the same structure, None
    where another has the value); the rest is that of the first.
    """
    final = folder / f"step-{step:06d}"
    temporary = folder / f"{TEMPORARY}{final.name}"
    content = {"step": step, "signature": signature, "record": dict(record or {})}

    def begin() -> None:
        make_folder(folder)
        for leftover in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover)
        temporary.mkdir()

    def end() -> None:
        (temporary / STATE).write_text(json.dumps(state, sort_keys=True), encoding="utf-8")
        for name, text in (described or {}).items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(text)
            persist(temporary / name)
        write_index(temporary, written)
        files = {name: known for each in written for name, known in each.files.items()}
        aliases = {name: target for each in written for name, target in each.aliases.items()}
        write_manifest(temporary, content | {"aliases": aliases}, files | {STATE: entry(temporary / STATE)})
        if final.exists():  # left by an attempt that went back to an older checkpoint
            _remove(final)
        temporary.rename(final)
        persist(folder)

    try:
        with room_for(final):
            ranks.together(lambda: begin() if ranks.is_main else None)
            written = ranks.together(lambda: write_part(temporary, ranks, model_state, optimizer_state, tied))
            ranks.together(lambda: end() if ranks.is_main else None)
    except BaseException:
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if ranks.is_main:
        _prune(folder, step, keep)
    return final


def load_latest(
    folder: Path, signature: str, lacks: Callable[[Mapping[str, Any]], str | None] = lambda record: None
) -> Checkpoint | None:
    """The newest undamaged checkpoint whose record is there, or None; says which ones it had to pass over.

    ``lacks`` is a clause about what is missing of the record that a checkpoint builds on. Raises :class:`ConfigError`
    when the checkpoint belongs to another configuration, and when the record reaches none.
    """
    missing = None
    for path, manifest in _undamaged(folder):
        if manifest["signature"] != signature:
            raise ConfigError(
                f"checkpoint {path} belongs to configuration {manifest['signature']}, this run is {signature}: "
                f"give the run its own folder, or move {folder} away to start from the beginning"
            )
        missing = lacks(manifest.get("record", {}))
        if missing is None:
            return _read(path, manifest)
        log.warning("checkpoint %s is passed over for the one before it: %s", path, missing)
    if missing is not None:
        raise ConfigError(
            f"{missing}, and no checkpoint is from before that: restore the file, or move {folder} away to train from "
            "the beginning"
        )
    return None


def newest(folder: Path, *, only: str | None = None) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint (of that name ``only``) and its manifest; says which ones it passed over."""
    return next(_undamaged(folder, only), None)


def _undamaged(folder: Path, only: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in reversed(_saved(folder)):
        if only is not None and path.name != only:
            continue
        try:
            yield path, verified(path)
        except DamagedCheckpoint as damage:
            log.warning("checkpoint %s is damaged (%s) and is passed over for the one before it", path, damage)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _saved(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()), key=_step)


def _read(path: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    tensors = read_weights(path, manifest["files"])
    return Checkpoint(
        step=int(manifest["step"]),
        model_state=tensors | {name: tensors[target] for name, target in manifest["aliases"].items()},
        optimizer_state=read_optimizer(path, manifest["files"]),
        state=json.loads((path / STATE).read_text(encoding="utf-8")),
        path=path,
    )


def _prune(folder: Path, step: int, keep: int) -> None:
    """Keep the ``keep`` newest whole checkpoints up to ``step``, which was hashed a moment ago and is always among
    them.

    Sizes and manifests are looked at, not every byte. Later steps are of no account: the run did not start from them.
    """
    kept = 0
    for path in reversed([path for path in _saved(folder) if _step(path) <= step]):
        try:
            read_manifest(path)
            kept += 1
        except DamagedCheckpoint as damage:
            log.warning("checkpoint %s is damaged (%s) and is removed", path, damage)
            _remove(path)
            continue
        if kept > max(keep, 1):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint so that no half of it keeps its name."""
    going = path.with_name(f"{TEMPORARY}gone-{path.name}")
    path.rename(going)
    shutil.rmtree(going)
