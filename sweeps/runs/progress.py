"""Progress of a run, read incrementally from status.json, metrics.jsonl and timings.jsonl in its folder.

It therefore works for jobs that another process started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer.contract.records import DamagedRecord, read_records
from trainer.contract.status import FINISHED, Status, read_status

SHOWN = {"rollout/reward": "reward", "policy/entropy": "entropy"}


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
    damage: str | None = None
    """An error message if a line of the metrics cannot be read."""
    _offset: int = 0
    _timings: int = 0
    _step_s: list[float] = field(default_factory=list)

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
            self.lines += 1
        records, self._timings = read_records(self.run_dir / "timings.jsonl", offset=self._timings)
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

    def figures(self) -> list[str]:
        """Step, reward, entropy and speed as short strings, as far as they are known."""
        parts = [f"step {self.status.step}/{self.status.steps}"] if self.status else []
        parts += [
            f"{label} {self.metrics[key]:.3f}" for key, label in SHOWN.items() if self.metrics.get(key) is not None
        ]
        parts += [f"{self.step_s:.2f} s/step"] if self.step_s is not None else []
        return parts
