"""Checkpoints: written atomically, checksummed, the last few kept, never unpickled.

``checkpoints/step-000020/`` holds model.safetensors, optimizer.pt, state.json and, written last, manifest.json; with
the model's own files beside them (``export.py``) it is a folder that transformers loads. Must not decide when to
save, and must never remove the newest good checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.contract.files import make_folder, persist, room_for
from trainer.contract.settings import ConfigError

WEIGHTS, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.pt", "state.json", "manifest.json"
CONTENT = (WEIGHTS, OPTIMIZER, STATE)
"""The files a manifest vouches for."""

TEMPORARY = ".tmp-"
"""Prefix of folders that are being written or removed; swept away at the next save."""

log = logging.getLogger(__name__)


class DamagedCheckpoint(Exception):
    """A checkpoint that is torn or whose bytes have changed; the message is a clause that says in what."""


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
) -> Path:
    """Write ``folder/step-<step>`` atomically, then prune to the newest ``keep``; returns its path.

    ``model_state``: weights [any shape], dimensionless. Of names for one tensor the first is stored, but one of
    ``tied`` only if there is no other: loaders leave these out. ``described`` are files to put beside the weights, by
    path. ``state`` is JSON (its keys are strings, its tuples come back as lists); ``record`` is the extent of the
    record that it builds on. Raises :class:`trainer.contract.files.OutOfSpace` on a full disk; no earlier one is lost.
    """
    make_folder(folder)
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    final = folder / f"step-{step:06d}"
    content = {"step": step, "signature": signature, "record": dict(record or {})}
    temporary = folder / f"{TEMPORARY}{final.name}"
    try:
        with room_for(final):
            temporary.mkdir()
            aliases = _write_weights(temporary / WEIGHTS, model_state, tied)
            _write_optimizer(temporary / OPTIMIZER, dict(optimizer_state))
            (temporary / STATE).write_text(json.dumps(state, sort_keys=True), encoding="utf-8")
            for name, written in (described or {}).items():
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_bytes(written)
                persist(temporary / name)
            _write_manifest(temporary, content | {"aliases": aliases})
            if final.exists():  # left by an attempt that went back to an older checkpoint
                _remove(final)
            temporary.rename(final)
            persist(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
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
            yield path, _verify(path)
        except DamagedCheckpoint as damage:
            log.warning("checkpoint %s is damaged (%s) and is passed over for the one before it", path, damage)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _saved(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()), key=_step)


def _write_weights(path: Path, model_state: Mapping[str, Tensor], tied: Collection[str]) -> dict[str, str]:
    """Store each tensor once (see :func:`save`); returns the other names of tied weights and what they stand for."""
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
    write_tensors(path, tensors)
    return aliases


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


def _write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Flush every file to the disk, then vouch for their bytes and for the manifest's own."""
    files = {}
    for name in CONTENT:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
            files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": file.tell()}
    content = content | {"files": files}
    with (folder / MANIFEST).open("w", encoding="utf-8") as file_out:
        json.dump(content | {"digest": _digest(content)}, file_out, indent=1)
        file_out.flush()
        os.fsync(file_out.fileno())
    persist(folder)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest, if it is whole and every file has its size; else :class:`DamagedCheckpoint`."""
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        digest = content.pop("digest")
        sizes = {name: (path / name).stat().st_size for name in CONTENT}
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read") from error
    if digest != _digest(content):
        raise DamagedCheckpoint(f"{MANIFEST} does not have its checksum")
    for name, size in sizes.items():
        if size != content["files"][name]["size"]:
            raise DamagedCheckpoint(f"{name} has {size} bytes instead of {content['files'][name]['size']}")
    return dict(content)


def _verify(path: Path) -> dict[str, Any]:
    """:func:`_manifest`, and every byte is as it was written."""
    manifest = _manifest(path)
    for name in CONTENT:
        try:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:  # a bad sector, most likely
            raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from error
        if digest != manifest["files"][name]["sha256"]:
            raise DamagedCheckpoint(f"{name} does not have its checksum")
    return manifest


def _read(path: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    tensors = load_file(path / WEIGHTS)
    return Checkpoint(
        step=int(manifest["step"]),
        model_state=tensors | {name: tensors[target] for name, target in manifest["aliases"].items()},
        optimizer_state=torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True),
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
            _manifest(path)
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
