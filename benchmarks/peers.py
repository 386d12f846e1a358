"""The environment the peers are measured in: their own packages beside the same PyTorch as ours.

    python -m benchmarks.peers

Made once, by the first benchmark that needs it, in a cache folder outside the checkout. TRL has to install; verl and
Liger are optional, and what does not install is said in the tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

TRL = "trl==1.16.*"
OPTIONAL = (
    ("--no-deps", "liger-kernel==0.8.5", "verl==0.9.1"),  # their own pins ask for an older transformers
    ("triton", "ray", "tensordict>=0.8,<=0.10,!=0.9.0", "codetiming", "peft", "hydra-core"),
)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def folder() -> Path:
    """Where the environment lives."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlvr-entropy" / "peers"


def python() -> str:
    """The peers' Python, after making their environment if it is not there."""
    binary, ready = folder() / "bin" / "python", folder() / ".ready"
    if not ready.exists():
        print(f"making the peers' environment in {folder()}", file=sys.stderr)
        venv.create(folder(), with_pip=True, clear=True)
        torch = f"torch=={version('torch')}"
        if not pip(torch) and not pip("--index-url", TORCH_CPU_INDEX, torch):
            raise SystemExit(f"{torch} could not be installed for the peers: is there a network?")
        same = [f"{name}=={version(name)}" for name in ("transformers", "accelerate", "numpy", "jaxtyping")]
        if not pip(TRL, *same):
            raise SystemExit(f"{TRL} could not be installed: is there a network?")
        for packages in OPTIONAL:
            pip(*packages)
        ready.touch()
    return str(binary)


def pip(*arguments: str) -> bool:
    """``pip install`` into the environment; whether it worked."""
    command = [
        str(folder() / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
        *arguments,
    ]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    print(python())
