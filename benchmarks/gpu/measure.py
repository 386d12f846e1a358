"""Seconds, peak memory and the ceilings of a device; what is found is printed at once, as a line of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch


def best_seconds(work: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Shortest of some repetitions after a warm-up."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(3):
        once()
    return min(once() for _ in range(repeats))


def ceilings(device: str, **_: Any) -> None:
    """What the card reaches in a matmul in bfloat16 and in a copy."""
    side, size = (8192, 2**32) if device != "cpu" else (512, 2**24)
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = best_seconds(lambda: left @ right, device)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), device)
    say({"matmul_tflops": 2 * side**3 / product / 1e12, "copy_gb_s": 2 * size / copy / 1e9, **card(device)})


def card(device: str) -> dict[str, Any]:
    """Name, memory (GiB), compute capability and CUDA version of the device."""
    if device == "cpu":
        return {"card": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


class Phases:
    """Seconds and peak memory of the phases of a step; the record so far is printed after each."""

    def __init__(self, device: str) -> None:
        self.device, self.found = device, dict[str, Any]()

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        gpu = self.device != "cpu"
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        result = work()
        if gpu:
            torch.cuda.synchronize()
            self.found[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.found[f"{name}_s"] = time.perf_counter() - start
        say(self.found)
        return result

    def note(self, **more: Any) -> None:
        self.found |= more
        say(self.found)


def say(found: dict[str, Any]) -> None:
    """Print the record so far; the last line that was printed counts."""
    print(json.dumps(found), flush=True)
