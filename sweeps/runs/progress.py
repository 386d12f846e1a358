"""Progress of a run, read incrementally from status.json, metrics.jsonl and timings.jsonl in its folder.

It therefore works for jobs that another process started.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from trainer.contract.records import DamagedRecord, read_records
from trainer.contract.status import FINISHED, Status, read_status

ENTROPY = "policy/entropy"
SHOWN = {"rollout/reward": "reward", ENTROPY: "entropy"}
LIVE = ("QUEUED", "RUNNING")
ACCURACY = re.compile(r"eval/(.+)/avg_at_(\d+)")


@dataclass(slots=True, kw_only=True)
class RunProgress:
    """Status and newest metrics of one run folder; :meth:`refresh` reads what was added since the last call."""

    run_dir: Path
    level: str = "default"
    seed: str = ""
    status: Status | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest value of every metric."""
    lines: int = 0
    """Steps recorded."""
    first: dict[str, float] = field(default_factory=dict)
    """First value of every metric."""
    entropies: list[float] = field(default_factory=list)
    """Entropy of every step so far, nats."""
    damage: str | None = None
    """An error message if a line of the metrics cannot be read."""
    _offset: int = 0
    _timings: int = 0
    _step_s: list[float] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)
    """Unix seconds at which steps were recorded."""

    def refresh(self) -> None:
        """Read the status, and the lines that were added since the last call."""
        before, self.status = self.status, read_status(self.run_dir)
        if before is not None and before == self.status and before.state in FINISHED:
            return
        try:
            self._read()
            self.damage = None
        except DamagedRecord as error:
            self.damage = str(error)

    def _read(self) -> None:
        records, self._offset = read_records(self.run_dir / "metrics.jsonl", offset=self._offset)
        for record in records:
            self.metrics |= record["metrics"]
            self.first = record["metrics"] | self.first
            self.lines += 1
            if record["metrics"].get(ENTROPY) is not None:
                self.entropies.append(record["metrics"][ENTROPY])
        records, self._timings = read_records(self.run_dir / "timings.jsonl", offset=self._timings)
        self._times += [record["time"] for record in records]
        self._step_s += [record["metrics"]["time/step_s"] for record in records if "time/step_s" in record["metrics"]]

    @property
    def name(self) -> str:
        """Level and seed, to display."""
        return f"{self.level}, seed {self.seed}" if self.seed else self.level

    @property
    def state(self) -> str:
        """The run's state; PLANNED if it has no status yet."""
        return self.status.state if self.status else "PLANNED"

    @property
    def is_live(self) -> bool:
        """Whether it runs or waits."""
        return self.state in LIVE

    @property
    def starting(self) -> tuple[str, float] | None:
        """What the run does before its first step, and for how many seconds; None if it does not, or has made it."""
        if not self.is_live or self._first_step_at() is not None:
            return None
        phases = self.startup()
        return phases[-1] if phases else None

    def startup(self) -> list[tuple[str, float]]:
        """Phases before the first step of the newest attempt, with their seconds; the last until that step, or now."""
        phases = self.status.startup if self.status else ()
        ends = [begun for _, begun in phases[1:]] + [self._first_step_at() or time.time()]
        return [(phase, max(0.0, end - begun)) for (phase, begun), end in zip(phases, ends, strict=False)]

    def startup_text(self) -> str:
        """``31 s to step 1: starting engine 18 s, importing 9 s, first step 4 s``: the three longest phases."""
        phases = sorted(self.startup(), key=lambda phase: -phase[1])
        shown = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in phases[:3] if seconds >= 0.5)
        total = sum(seconds for _, seconds in phases)
        return f"{total:.0f} s to step 1{f': {shown}' if shown else ''}" if phases else ""

    def _first_step_at(self) -> float | None:
        """Unix seconds at which the newest attempt recorded its first step; None before, or where nothing tells."""
        if self.status is None or not self.status.startup:
            return None
        return next((moment for moment in self._times if moment >= self.status.startup[-1][1]), None)

    @property
    def step_s(self) -> float | None:
        """Mean seconds per step over the last 10 steps."""
        recent = self._step_s[-10:]
        return sum(recent) / len(recent) if recent else None

    @property
    def total_s(self) -> float:
        """Seconds spent in steps so far."""
        return sum(self._step_s)

    @property
    def left_s(self) -> float | None:
        """Seconds until the run ends at its present speed."""
        if self.step_s is None or self.status is None:
            return None
        return self.step_s * max(0, self.status.steps - self.status.step)

    def changes(self) -> list[str]:
        """Accuracy of the first suite, entropy, and reward where there is no suite: before and after training."""
        suites = {key: f"{found[1]} avg@{found[2]}" for key in self.first if (found := ACCURACY.fullmatch(key))}
        known = dict(list(suites.items())[:1]) or {"rollout/reward": "reward"}
        return [
            f"{label} {self.first[key]:.3f} to {self.metrics[key]:.3f}"
            for key, label in (known | {ENTROPY: "entropy"}).items()
            if self.first.get(key) is not None and self.metrics.get(key) is not None
        ]

    def figures(self) -> list[str]:
        """Step, reward, entropy and speed as short strings, as far as they are known."""
        parts = [f"step {self.status.step}/{self.status.steps}"] if self.status else []
        parts += [
            f"{label} {self.metrics[key]:.3f}" for key, label in SHOWN.items() if self.metrics.get(key) is not None
        ]
        parts += [f"{self.step_s:.2f} s/step"] if self.step_s is not None else []
        return parts
