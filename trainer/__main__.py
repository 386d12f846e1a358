"""``python -m trainer RUN_DIR ...``: train the runs in these folders, one after another, with one engine.

Started by the jobs of a sweep, or by hand. Exit codes: 0 done, 2 bad configuration, 10 stopped on request, 20
preempted, 1 crashed. ``--check`` validates configurations from standard input; ``--sync`` fills the MLflow mirror of
runs from their folders.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from trainer.config import ConfigError
from trainer.record import RunFolder

EXIT_CODES = {"COMPLETED": 0, "PRUNED": 10, "PREEMPTED": 20, "FAILED": 1}
BAD_CONFIGURATION = 2


class Interrupt:
    """Set by the first of SIGTERM, SIGUSR1 and SIGUSR2; honoured at the end of a step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> None:
        """Handle the signals from now on. Until then they are ignored, so that children started meanwhile survive
        them."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def __call__(self) -> bool:
        return self.signal is not None


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN_DIR", help="folder with a run.yaml")
    parser.add_argument(
        "--check", action="store_true", help="validate JSON lines {config, where} from standard input and start nothing"
    )
    parser.add_argument(
        "--sync", action="store_true", help="bring MLflow up to date with the folders and train nothing"
    )
    options = parser.parse_args(arguments)
    # Idle OpenMP threads sleep instead of spinning: same speed alone, four times faster beside another busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if options.check:
        return check(sys.stdin.read())
    if not options.folders:
        parser.error("name at least one run folder")
    if options.sync:
        from trainer.tracking import sync

        for folder in options.folders:
            sync(folder)
        return 0
    return run_all(options.folders)


def check(lines: str) -> int:
    """One sentence for each configuration that cannot run; the exit code is 2 if there is any."""
    from trainer.compatibility import problems

    failed = False
    for line in filter(None, lines.splitlines()):
        request = json.loads(line)
        for problem in problems(request["config"]):
            prefix = "" if problem.fatal else "warning: "
            where = f" (in {request['where']})" if request.get("where") else ""
            print(f"{prefix}{problem.sentence}{where}", flush=True)
            failed = failed or problem.fatal
    return BAD_CONFIGURATION if failed else 0


def run_all(folders: list[Path]) -> int:
    """Train every folder in turn; the exit code is the worst one, and a signal ends the queue."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    from trainer.engine.base import EnginePool

    engines, interrupt = EnginePool(), Interrupt()
    codes = []
    try:
        for path in folders:
            codes.append(run_one(RunFolder(path), engines, interrupt))
            if interrupt():
                break
    finally:
        engines.close()
    return max(codes, key=[0, 10, 20, 2, 1].index)


def run_one(folder: RunFolder, engines: object, interrupt: Interrupt) -> int:
    """Train one folder. Whatever happens is in its ``status.json`` afterwards; a crash is also in
    ``attempts/<n>/traceback``."""
    from trainer.build import build_run
    from trainer.engine.base import EnginePool
    from trainer.loop import train
    from trainer.mirror import Mirror
    from trainer.update import NonFiniteLoss

    assert isinstance(engines, EnginePool)
    status = folder.read_status()
    if status and status["state"] == "COMPLETED":
        return 0
    try:
        config = folder.config()
        run = build_run(config)
    except ValueError as error:
        print(error, file=sys.stderr)
        if folder.path.is_dir():
            folder.write_status("FAILED", 0, 0, str(error))
        return BAD_CONFIGURATION
    folder.write_status("RUNNING", (status or {}).get("step", 0), run.steps)
    state, message = "FAILED", ""
    mirror = Mirror(folder, config)
    try:
        interrupt.install()
        state = train(run, folder, engines, interrupted=interrupt, durable=mirror.mark_durable, progress=print_progress)
    except ConfigError as error:
        message = str(error)
        print(message, file=sys.stderr)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        _keep_traceback(folder)
        if isinstance(error, NonFiniteLoss):
            _keep_batch(folder, error)
    finally:
        last = folder.read_status() or {}
        folder.write_status(state, run.steps if state == "COMPLETED" else last.get("step", 0), run.steps, message)
        mirror.close()
    return EXIT_CODES[state]


def print_progress(step: int, steps: int, metrics: dict[str, float]) -> None:
    """One line a step: what a person watching wants to see."""
    parts = [f"step {step:>4}/{steps}"]
    for key, label in (
        ("rollout/reward", "reward"),
        ("policy/entropy", "entropy"),
        ("rollout/length_mean", "length"),
        ("time/step_s", "s/step"),
    ):
        if key in metrics:
            parts.append(f"{label} {metrics[key]:.3f}")
    parts += [
        f"{key.removeprefix('eval/')} {value:.3f}"
        for key, value in sorted(metrics.items())
        if key.startswith("eval/") and "/avg_at_" in key
    ]
    print("  ".join(parts), flush=True)


def _keep_traceback(folder: RunFolder) -> None:
    text = traceback.format_exc()
    print(text, file=sys.stderr)
    attempt = folder.path / "attempts" / str(folder.attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    (attempt / "traceback").write_text(text)


def _keep_batch(folder: RunFolder, error: object) -> None:
    import torch

    batch = error.batch  # type: ignore[attr-defined]
    columns = {name: getattr(batch, name) for name in batch.__slots__ if name != "extras"}
    torch.save(columns, folder.path / "nonfinite_batch.pt")


if __name__ == "__main__":
    sys.exit(main())
