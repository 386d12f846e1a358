"""Wall time by phase. What it measures never goes into ``metrics.jsonl``."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Stopwatch:
    """Wall time by phase, seconds. A phase within a phase counts for itself, not for the outer one."""

    times: dict[str, float] = field(default_factory=dict)
    _inner: float = 0.0
    """Seconds spent in phases since the phase at hand began."""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.times[f"time/{phase}_s"] = self.times.get(f"time/{phase}_s", 0.0) + seconds - self._inner
        self._inner = outer + seconds

    def timings(self, num_tokens: float, seconds: float) -> dict[str, float]:
        """The phases, the whole step, sampled tokens per second, and the peak of memory in GiB."""
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**30
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rates = {"throughput/tokens_per_s": num_tokens / seconds, "memory/peak_gib": peak}
        return self.times | {"time/step_s": seconds} | rates
