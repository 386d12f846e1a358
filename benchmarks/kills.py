"""Random kills of a sweep's processes, and whether anything was lost: called by ``python -m benchmarks.resilience``.

A sweep of small cells is started again and again while trainer, launcher and mirror are killed with signal 9: at
start-up, in mid-step, while a checkpoint is written, at the end. When all its cells are complete, records, weights and
MLflow have to equal those of a sweep that nothing happened to, byte for byte; then the next sweep begins.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.small_sweep import CELLS, ONE_OF, PATIENCE_S, STEPS, Sweep, differences, kill

TARGETS = (*ONE_OF, "all")
"""``all``: the three at once, as when a machine loses its power."""

MOMENTS = ("start-up", "step", "checkpoint", "end")
START_UP_S = 25.0
"""The first kills fall within so many seconds of a launcher's start: its own, and that of its trainer."""


def wait_for(sweep: Sweep, moment: str, rng: random.Random) -> bool:
    """Wait for the moment; False when the sweep is complete before it comes."""
    end = time.monotonic() + PATIENCE_S
    if moment == "start-up":
        sleep_until(sweep.started + rng.uniform(0.0, START_UP_S))
        return not sweep.complete
    before = sweep.lines()
    while time.monotonic() < end and not sweep.complete:
        if moment == "step" and sweep.lines() > before:
            time.sleep(rng.uniform(0.0, 0.3))
            return True
        if moment == "checkpoint" and any(sweep.output.glob("runs/*/checkpoints/.tmp-*")):
            return True
        if moment == "end" and any(_near_its_end(path) for path in sweep.output.glob("runs/*/metrics.jsonl")):
            time.sleep(rng.uniform(0.0, 0.5))
            return True
        if moment in ("step", "end") and sweep.launcher is not None and sweep.launcher.poll() is not None:
            sweep.start()
        time.sleep(0.001 if moment == "checkpoint" else 0.02)
    return False


def _near_its_end(path: Path) -> bool:
    state = json.loads(path.with_name("status.json").read_text())["state"]
    return state == "RUNNING" and path.read_bytes().count(b"\n") >= STEPS


def sleep_until(when: float) -> None:
    """Sleep until the monotonic clock says ``when``."""
    time.sleep(max(0.0, when - time.monotonic()))


def strike(sweep: Sweep, target: str, moment: str, rng: random.Random) -> str | None:
    """Kill one process at a moment; what it was, None when the sweep was complete before."""
    sweep.start()
    if not wait_for(sweep, moment, rng):
        return None
    if target == "all":
        sweep.end()
        return target
    for chosen in (target, "trainer", "launcher"):  # at start-up there may be no mirror yet
        found = sweep.pids(chosen)
        if found:
            kill([rng.choice(found)])
            if chosen == "launcher" and sweep.launcher is not None:
                sweep.launcher.wait()
            return chosen
    return None


def drill(place: Path, number: int, seed: int) -> int:
    """Kill ``number`` times and print what was lost; the exit code is 1 if anything was."""
    rng, kills, lost, since = random.Random(seed), Counter[tuple[str, str]](), list[str](), time.monotonic()
    reference, sweeps = Sweep(output=place / "undisturbed"), list[Sweep]()
    try:
        reference.finish()
        while sum(kills.values()) < number:
            sweeps.append(Sweep(output=place / f"killed-{len(sweeps)}"))
            lost += _until_complete(reference, sweeps[-1], kills, number, rng)
    finally:
        for sweep in (reference, *sweeps):
            sweep.end()
    _report(kills, len(sweeps), lost, time.monotonic() - since)
    return 1 if lost else 0


def _until_complete(
    reference: Sweep, sweep: Sweep, kills: Counter[tuple[str, str]], number: int, rng: random.Random
) -> list[str]:
    """Kill within one sweep until it is complete or there were enough; what it then has otherwise."""
    while sum(kills.values()) < number:
        moment = rng.choice(MOMENTS)
        struck = strike(sweep, rng.choice(TARGETS), moment, rng)
        if struck is None:
            break
        kills[moment, struck] += 1
        print(f"{sum(kills.values()):>4}  {struck:<9} at {moment:<11} {' '.join(sorted(sweep.states()))}", flush=True)
    sweep.finish()
    found = differences(reference, sweep)
    said = "; ".join(found) or "equal to the undisturbed one"
    print(f"      {sweep.output.name}: {sweep.starts} starts, {said}", flush=True)
    return [f"{sweep.output}: {name}" for name in found]


def _report(kills: Counter[tuple[str, str]], sweeps: int, lost: list[str], seconds: float) -> None:
    print(f"\n{sum(kills.values())} kills of {sweeps} sweeps of {CELLS} cells in {seconds / 60:.0f} min")
    print(f"  {'':<12}" + "".join(f"{target:>10}" for target in TARGETS))
    for moment in MOMENTS:
        print(f"  {moment:<12}" + "".join(f"{kills[moment, target]:>10}" for target in TARGETS))
    print(f"lost: {len(lost)}" if lost else "nothing was lost")
    for line in lost:
        print(f"  {line}")


def arguments_of(parser: Any) -> None:
    """What the command line may say of this drill."""
    parser.add_argument("--kills", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--launchers", type=int, help="start so many launchers of one grid at once instead of killing")
    parser.add_argument("--seed", type=int, default=0, help="of targets and moments (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the sweeps; without it they are removed at the end")
