"""Whether anything can be lost, and what safety costs: ``python -m benchmarks.resilience [--kills N]``.

Kills the processes of small sweeps at random moments and compares what is left with an undisturbed sweep (see
:mod:`benchmarks.kills`); with ``--launchers N`` starts N launchers of one sweep at once instead. With ``--costs``:
trains the same small run without and with the MLflow mirror (a fresh SQLite store), in turns, and says what a step and
a run pay; kills runs with signal 9 and says how long it takes until the next step is recorded. Overrides are then those
of ``sweep.py``, for example ``engine=transformers steps=60``. Every number is the median over rounds, with the range.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.crowd import crowd  # noqa: E402
from benchmarks.kills import arguments_of, drill  # noqa: E402
from sweeps.compose.compose import Composed, compose  # noqa: E402
from sweeps.grid.cells import cells, resolve_all  # noqa: E402
from trainer.contract import run_yaml  # noqa: E402
from trainer.contract.identity import SCHEMA  # noqa: E402

ROUNDS = 3
DEFAULTS = ("steps=40", "evaluation=none", "checkpoint.every=5", "tracking=none")
TRAINER = [sys.executable, "-m", "trainer"]


def run_folder(path: Path, overrides: list[str], uri: str | None) -> Path:
    """A folder that is ready to start."""
    chosen = [*DEFAULTS, *overrides]
    (cell,) = cells(resolve_all([Composed(config=compose(chosen), overrides=tuple(chosen))]))
    config = (
        {"schema": SCHEMA}
        | dict(cell.config)
        | {"tracking": cell.config["tracking"] | {"uri": uri}, "signature": cell.signature}
    )
    path.mkdir(parents=True)
    (path / "run.yaml").write_text(run_yaml.dumps(config))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    """The timings so far."""
    path = folder / "timings.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def trained(folder: Path) -> dict[str, float]:
    """Seconds of one whole run and of its steps, without the first, which warms up."""
    start = time.perf_counter()
    subprocess.run([*TRAINER, str(folder)], cwd=ROOT, check=True, capture_output=True)
    wall = time.perf_counter() - start
    timings = [line["metrics"] for line in lines(folder)]
    steps = [line["time/step_s"] for line in timings[1:] if "time/step_s" in line]
    found = {"run, s": wall, "step, ms": 1000 * statistics.median(steps)}
    for name, key in (("record, ms a step", "time/record_s"), ("checkpoint, ms", "time/checkpoint_s")):
        found[name] = 1000 * statistics.median(line[key] for line in timings if key in line)
    return found | {"largest hand-over to the mirror, ms": 1000 * max(line.get("time/mirror_s", 0) for line in timings)}


def killed(folder: Path) -> dict[str, float]:
    """Seconds from a kill -9 in mid-run to the next recorded step, and how many steps were computed again."""
    process = subprocess.Popen([*TRAINER, str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(lines(folder)) < 13:
        time.sleep(0.01)
    process.kill()
    process.wait()
    reached, start = lines(folder)[-1]["step"], time.perf_counter()
    since = time.time()
    again = subprocess.Popen([*TRAINER, str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new: list[dict[str, Any]] = []
    while not new:
        time.sleep(0.01)
        new = [line for line in lines(folder) if line["time"] > since]
    seconds = time.perf_counter() - start
    again.kill()
    again.wait()
    return {"kill to next recorded step, s": seconds, "steps computed again": reached - new[0]["step"] + 1}


def table(title: str, rounds: list[dict[str, float]]) -> None:
    """One line a number: median and range over the rounds."""
    print(f"\n{title}")
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"  {name:<38} {statistics.median(values):9.2f}   ({min(values):.2f} to {max(values):.2f})")


def costs(place: Path, overrides: list[str]) -> None:
    """Measure what safety costs, and print it."""
    plain, mirrored, kills = [], [], []
    for number in range(ROUNDS):  # in turns, so that what else the machine does falls on both
        plain.append(trained(run_folder(place / f"plain-{number}", overrides, None)))
        uri = f"sqlite:///{place / 'mlflow.db'}"
        mirrored.append(trained(run_folder(place / f"mirrored-{number}", overrides, uri)))
        kills.append(killed(run_folder(place / f"killed-{number}", overrides, None)))
    print(f"{' '.join([*DEFAULTS, *overrides])}; median over {ROUNDS} rounds (range)")
    table("without MLflow", plain)
    table("with its mirror", mirrored)
    table("kill -9", kills)


def main() -> int:
    """Kill, or measure; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resilience")
    arguments_of(parser)
    parser.add_argument("--costs", nargs="*", metavar="OVERRIDE", help="measure what safety costs instead")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as scratch:
        place = (options.keep or Path(scratch)).absolute()
        if options.launchers:
            return crowd(place, options.launchers)
        if options.costs is None:
            return drill(place, options.kills, options.seed)
        costs(place, options.costs)
        return 0


if __name__ == "__main__":
    sys.exit(main())
