"""The GPUs that this process may use, determined without importing torch."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess


@functools.cache
def _listed_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0


def visible_gpus() -> list[str]:
    """Device names for ``CUDA_VISIBLE_DEVICES``; empty on a machine without a usable GPU."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.replace(" ", "").split(",") if name and name != "-1"]
    return [str(number) for number in range(_listed_gpus())]
