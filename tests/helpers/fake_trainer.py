"""A trainer of a hundred lines without torch, to test the queue in seconds: same command line, files and exit codes.

What goes wrong is chosen by the seed of the run; see ``SEEDS``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SEEDS = {13: "raise", 15: "leave", 16: "slow", 17: "grandchild", 18: "deaf"}
SIGNALS = {14: signal.SIGKILL, 19: signal.SIGSEGV, 20: signal.SIGBUS, 21: signal.SIGABRT}
"""By which the trainer dies amid its second step, after a line that only shows progress."""
SIGNALLED: list[int] = []
STEP_S = 0.02


def status(folder: Path, state: str, step: int, steps: int, message: str = "") -> None:
    attempts = [int(path.name) for path in (folder / "attempts").iterdir()] if (folder / "attempts").exists() else [1]
    record = {
        "state": state, "step": step, "steps": steps, "time": time.time(), "message": message, "pid": os.getpid(),
        "host": socket.gethostname(), "attempt": max(attempts), "mlflow_run_id": None,
    }  # fmt: skip
    temporary = folder / f".status.{os.getpid()}"
    temporary.write_text(json.dumps(record))
    temporary.replace(folder / "status.json")


def follow(folder: Path) -> int:
    """What the second rank does: leave when it is told to, or when the first has ended the run."""
    while not SIGNALLED:
        if json.loads((folder / "status.json").read_text())["state"] == "COMPLETED":
            return 0
        time.sleep(0.05)
    with (folder / "told").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return 20


def measured(config: dict[str, Any], step: int) -> dict[str, float]:
    """The metrics of a step; ``fake_learner.py`` has others."""
    entropy = 0.3 - 0.01 * step + 0.1 * float(config["surrogate"]["clip_high"] or 0)
    return {"policy/entropy": entropy, "rollout/reward": 0.1 * step}


def train(folder: Path) -> int:
    if os.environ.get("RANK", "0") != "0":
        return follow(folder)
    config = yaml.safe_load((folder / "run.yaml").read_text())
    trouble, steps = SEEDS.get(config["seed"], ""), config["steps"]
    metrics = folder / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    with (folder / "started").open("a") as file:
        file.write(f"{os.getpid()} {done} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {time.time()}\n")
    status(folder, "RUNNING", done, steps)
    if trouble == "grandchild":
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)", str(folder)]
        subprocess.Popen(sleeper)
        subprocess.Popen(sleeper, start_new_session=True)  # as the ranks of a run and the workers of an engine are
    for step in range(done, steps):
        time.sleep(0.6 if trouble in ("slow", "grandchild", "deaf") else STEP_S)
        if trouble == "raise" and step == 1 and not (folder / "mended").exists():
            status(folder, "FAILED", step, steps, "RuntimeError: the loss is not finite")
            raise RuntimeError("the loss is not finite")
        if config["seed"] in SIGNALS and step == 1 and not (folder / "mended").exists():
            print("\rLoading safetensors checkpoint shards: 100% Completed | 1/1", file=sys.stderr, flush=True)
            os.kill(os.getpid(), SIGNALS[config["seed"]])
        if trouble == "leave" and step == 1:
            return 0
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "metrics": measured(config, step)}) + "\n")
        with (folder / "timings.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), "metrics": {"time/step_s": 0.02}}) + "\n")
        status(folder, "RUNNING", step + 1, steps)
        if (folder / "STOP").exists():
            by_hand = (folder / "STOP").read_text().startswith("cancel")
            status(folder, "CANCELLED" if by_hand else "PRUNED", step + 1, steps)
            return 10
        if SIGNALLED and trouble != "deaf":
            status(folder, "PREEMPTED", step + 1, steps)
            return 20
    status(folder, "COMPLETED", steps, steps)
    return 0


def check() -> int:
    bad = 0
    for line in sys.stdin:
        request = json.loads(line)
        config, where = request["config"], request["where"]
        if config["optim"]["lr"] < 0:
            print(f"optim.lr={config['optim']['lr']} cannot be used: a learning rate is at least 0 (in {where})")
            bad = 2
        if config["optim"]["updates_per_rollout"] == 1:
            print(f"warning: clip settings are inert (in {where})")
    return bad


def main() -> int:
    if sys.argv[1] == "--check":
        return check()
    if sys.argv[1] == "--sync":
        for folder in map(Path, sys.argv[2:]):
            (folder / "synced").touch()
        return 0
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: SIGNALLED.append(number))
    codes = []
    for folder in map(Path, sys.argv[1:]):
        state = json.loads((folder / "status.json").read_text())["state"] if (folder / "status.json").exists() else ""
        if state != "COMPLETED":
            print(f"training {folder.name}", flush=True)
            codes.append(train(folder))
        if SIGNALLED:
            break
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
