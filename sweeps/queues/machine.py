"""Cores and memory of this machine, and how many runs fit on it.

The threads of a run follow from the size of its model, never from the machine, so that the same configuration gives
the same bytes on 2 and on 64 cores; a machine with more cores runs more of them at a time.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.memory.model_size import ModelSize, model_size, planned_size
from sweeps.memory.parts import GIB, memory_parts
from sweeps.memory.shape import ModelShape

THREADS = ((20e6, 1), (100e6, 2), (500e6, 4))
"""(parameters, threads): a model with fewer parameters gets so many threads. In small models, synchronising threads at
every operator costs more than a second thread gains."""

MAX_THREADS = 8
"""Threads for larger models, and for models on the hub, whose size is not known here."""

RESERVE_GIB = 0.6
"""Memory that a run on a CPU is given above its estimate: running out of memory would kill all runs."""

UNKNOWN = ModelSize(parameters=7_000_000_000, shape=ModelShape())
"""Stands for a model of which nothing is known here."""

CGROUP = Path("/sys/fs/cgroup")
_MEMORY = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Files of control groups (version 2, 1): the limit, what is used, and how much of that is cache that can go."""


def num_threads(size: ModelSize | None) -> int:
    """CPU threads of a run of a model of this size."""
    if size is None:
        return MAX_THREADS
    return next((threads for below, threads in THREADS if size.parameters < below), MAX_THREADS)


def num_slots(configs: Sequence[Mapping[str, Any]]) -> int:
    """Runs that fit on this machine side by side, if each needs as much as the largest of ``configs``; at least 1."""
    threads = max(int(c["hardware"]["num_threads"] or 1) * int(c["hardware"]["processes"]) for c in configs)
    needed_gib = max(memory_gib(config) for config in configs)
    return max(1, min(num_cores() // threads, int(free_gib() // needed_gib)))


def memory_gib(config: Mapping[str, Any]) -> float:
    """Upper estimate of the memory of a run on a CPU, all ranks together, GiB."""
    model = config["model"]
    size = planned_size(model.get("path"), model.get("revision")) or UNKNOWN
    return int(config["hardware"]["processes"]) * (RESERVE_GIB + memory_parts(config, size).total / GIB)


def with_device_and_threads(config: Mapping[str, Any], *, on_gpus: bool) -> dict[str, Any]:
    """``config`` with ``hardware.device=auto`` and ``hardware.num_threads=null`` replaced by values.

    ``on_gpus``: jobs of its queue have GPUs.
    """
    hardware = dict(config["hardware"])
    if hardware["device"] == "auto":
        hardware["device"] = "cuda" if on_gpus and torch_knows_cuda() else "cpu"
    if hardware["num_threads"] is None:
        hardware["num_threads"] = num_threads(model_size(config["model"].get("path")))
    return {**config, "hardware": hardware}


def num_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    quota, period = (_read("cpu.max") or f"{_read('cpu/cpu.cfs_quota_us')} {_read('cpu/cpu.cfs_period_us')}").split()
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, math.ceil(int(quota) / int(period)))) if quota.isdigit() else allowed


def total_gib() -> float:
    """Memory of this machine, GiB: the smaller of the system's and of the container's limit."""
    found = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    limits = [most for limit, *_ in _MEMORY if (most := _read(limit)) is not None and most.isdigit()]
    return min([int(found[1]) * 1024 if found else math.inf, *map(int, limits)]) / 2**30


def free_gib() -> float:
    """Memory available to new processes, GiB: the smaller of the system's and of the container's limit."""
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(available[1]) * 1024 if available else math.inf
    for limit, used, statistics, name in _MEMORY:
        most, now = _read(limit), _read(used)
        if most is not None and most.isdigit() and now is not None:
            cached = re.search(rf"^{name} (\d+)", _read(statistics) or "", re.MULTILINE)
            free = min(free, int(most) - int(now) + (int(cached[1]) if cached else 0))
    return max(0.0, free / 2**30)


@functools.cache
def torch_knows_cuda() -> bool:
    """Whether the installed torch was built for GPUs, from its version file: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    built = re.search(r"^cuda\b[^=\n]*=(.+)$", Path(spec.origin).with_name("version.py").read_text(), re.MULTILINE)
    return built is not None and built[1].strip() != "None"


def _read(name: str) -> str | None:
    """The content of a file of this container's control group; None where there is none."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return None
