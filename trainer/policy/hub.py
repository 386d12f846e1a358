"""Resolves a hub name to a folder on this machine, under one short time limit; everything after it reads files.

It must not decide what a model has to be.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from trainer.contract.files import OutOfSpace, room_for
from trainer.contract.settings import ConfigError

Answer = TypeVar("Answer")

DESCRIPTION = r"[^/]+\.(json|txt|model|tiktoken|jinja|py)"
"""What says how a model is built and how it reads text; small."""
SAFETENSORS, PICKLED = r"[^/]+\.safetensors", r"pytorch_model[^/]*\.bin"


@functools.cache
def fetched(name: str, revision: str | None, *, weights: bool) -> Path:
    """Folder of the hub's ``name`` in the local cache, brought up to date where the hub answers; with its ``weights``
    or only with what describes them.

    The first question to the hub waits ``HF_HUB_ETAG_TIMEOUT`` (10 s) in all, without a second try; if nobody answers,
    what is in the cache is used. Raises :class:`ConfigError` when there is nothing in it, or the hub refuses.
    """
    if constants.is_offline_mode():
        return _cached(name, revision, "HF_HUB_OFFLINE is set")
    limit = constants.HF_HUB_ETAG_TIMEOUT
    try:
        info = _within(limit, lambda: HfApi().model_info(name, revision=revision, timeout=limit))
    except HFValidationError as error:
        raise ConfigError(f"model.path={name!r} is no folder here and cannot be a hub name: {_first(error)}") from error
    except HfHubHTTPError as error:
        raise ConfigError(
            f"model.path={name!r} is no folder here, and the hub refuses it: {_refusal(name, error)}"
        ) from error
    except Exception:  # no route, no name server, no certificate, no answer: each layer has its own error for it
        return _cached(name, revision, f"the hub did not answer within {limit} s")
    files = [file.rfilename for file in info.siblings or ()]
    needed = [file for file in files if re.fullmatch(DESCRIPTION, file)]
    tensors = _matching(files, SAFETENSORS) or _matching(files, PICKLED)
    if not tensors:
        raise ConfigError(f"model.path={name!r} holds no weights on the hub: give a causal language model")
    return _download(name, revision, needed + tensors * weights)


def _matching(files: list[str], pattern: str) -> list[str]:
    return [file for file in files if re.fullmatch(pattern, file)]


def _download(name: str, revision: str | None, files: list[str]) -> Path:
    try:
        with room_for(Path(constants.HF_HUB_CACHE)):
            return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except OutOfSpace:
        raise
    except Exception as error:
        raise ConfigError(f"model.path={name!r} could not be brought from the hub: {_refusal(name, error)}") from error


def _refusal(name: str, error: Exception) -> str:
    """Why the hub did not give a model, and how to get it."""
    if isinstance(error, GatedRepoError):
        return (
            f"it is gated: accept its licence at {constants.ENDPOINT}/{name}, then say who you are (`hf auth login`, "
            "or set HF_TOKEN)"
        )
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such model, or it is private: check the name, or say who you are (`hf auth login`)"
    return _first(error)


def _cached(name: str, revision: str | None, why: str) -> Path:
    """What an earlier download left, which has to be all of it: nothing more will come."""
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise ConfigError(f"model.path={name!r} is no folder here and cannot be a hub name: {_first(error)}") from error
    except LocalEntryNotFoundError as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ConfigError(
            f"model.path={name!r}{at} is no folder here and not in the hub's cache, and {why}: give the folder of a "
            f"saved model, or bring it where there is a network (`hf download {name}`) and set HF_HUB_OFFLINE=1 here"
        ) from error
    files = [file.name for file in folder.iterdir() if file.exists()]
    if not (_matching(files, SAFETENSORS) or _matching(files, PICKLED)):
        raise ConfigError(f"model.path={name!r} has no weights in the hub's cache, and {why}: download all of it first")
    return folder


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer, or :class:`TimeoutError`. A name server that is silent heeds no time limit of a request."""
    answers: list[Answer] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not answers:
        raise TimeoutError
    return answers[0]


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
