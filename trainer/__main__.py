"""``python -m trainer RUN_DIR ...``: train the runs in these folders, one after another, with one engine.

Started by the jobs of a sweep, or by hand. Exit codes: 0 done, 2 bad configuration, 10 stopped on request, 20
preempted, 1 crashed. ``--check`` validates configurations from standard input; ``--sync`` fills the MLflow mirror of
runs from their folders. ``python -m trainer export RUN`` writes the model of a run's last checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from trainer.config import ConfigError
from trainer.files import OutOfSpace, room_for
from trainer.record import RunFolder

if TYPE_CHECKING:
    from trainer.build import Run
    from trainer.engine.base import EnginePool

EXIT_CODES = {"COMPLETED": 0, "PRUNED": 10, "CANCELLED": 10, "PREEMPTED": 20, "FAILED": 1}
BAD_CONFIGURATION = 2


class Interrupt:
    """Set by the first of SIGTERM, SIGUSR1 and SIGUSR2; honoured at the next step boundary."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> None:
        """Handle the signals from now on, that is, also while torch and the engine are still starting."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def __call__(self) -> bool:
        return self.signal is not None


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["export"]:
        from trainer import export

        return export.main(arguments[1:])
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
    _let_threads_wait()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if options.check:
        return check(sys.stdin.read())
    if not options.folders:
        parser.error("name at least one run folder")
    if options.sync:
        return sync_all(options.folders)
    return run_all(options.folders)


def _let_threads_wait() -> None:
    """Idle OpenMP threads look around for some microseconds, then sleep; must be said before torch is imported.

    Without a word they spin for milliseconds, which makes a step four times slower beside another busy process. Asleep
    at once they have to be woken for each of the thousands of small operators of a step, up to a quarter of its time.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def check(lines: str) -> int:
    """One sentence for each configuration that cannot run; the exit code is 2 if there is any.

    A line is a JSON object with the resolved ``config`` and, if wanted, ``where`` it comes from, which is quoted, and
    ``here``, false if it is for another machine.
    """
    from trainer.compatibility import problems
    from trainer.objective.base import Concern

    failed = False
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if isinstance(request, dict) and isinstance(request.get("config"), dict):
            found, where = problems(request["config"], here=request.get("here", True)), request.get("where")
        else:
            found, where = [Concern(sentence='not a JSON object with a "config"')], f"line {number}"
        for problem in found:
            prefix = "" if problem.fatal else "warning: "
            print(f"{prefix}{problem.sentence}{f' (in {where})' if where else ''}", flush=True)
            failed = failed or problem.fatal
    return BAD_CONFIGURATION if failed else 0


def sync_all(folders: list[Path]) -> int:
    """Fill the mirror of every folder; one sentence for each that cannot be filled, and then the exit code is 1."""
    from trainer.tracking import sync

    failed = 0
    for folder in folders:
        try:
            sync(folder)
        except Exception as error:  # the boundary to MLflow, which raises whatever its store raises
            reason = str(error).strip().partition("\n")[0][:300]
            print(f"{folder} could not be brought to MLflow ({type(error).__name__}: {reason})", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def run_all(folders: list[Path]) -> int:
    """Train every folder in turn; the exit code is the worst one. After a signal no further run is begun, and the exit
    code says that somebody has to come back for them."""
    interrupt = Interrupt()
    interrupt.install()
    from trainer.engine.base import EnginePool

    engines, codes = EnginePool(), []
    with contextlib.ExitStack() as at_end:
        try:
            for path in folders:
                folder = RunFolder(path, writable=os.environ.get("RANK", "0") == "0")
                codes.append(EXIT_CODES["PREEMPTED"] if interrupt() else run_one(folder, engines, interrupt, at_end))
        finally:
            engines.close()
    return max(codes, key=[0, 10, 20, 2, 1].index)


def run_one(folder: RunFolder, engines: EnginePool, interrupt: Callable[[], bool], at_end: contextlib.ExitStack) -> int:
    """Check and train one folder; returns its exit code. A configuration that cannot run is one sentence, no more.

    What may go on beside the next run is waited for ``at_end``.
    """
    status: dict[str, Any] | None = None
    try:
        status = folder.read_status() or {}
        if status.get("state") == "COMPLETED":
            return 0
        config = folder.config()
        run = _checked(config)
    except ValueError as error:
        _say(str(error))
        if status is not None and folder.config_file.is_file():
            with contextlib.suppress(OutOfSpace):
                folder.write_status("FAILED", status.get("step", 0), status.get("steps", 0), str(error))
        return BAD_CONFIGURATION
    return _train(run, config, folder, engines, interrupt, at_end)


def _checked(config: dict[str, Any]) -> Run:
    """The run of a configuration; warnings are printed, the first problem is raised as :class:`ConfigError`."""
    from trainer.build import build_run
    from trainer.compatibility import problems

    for problem in problems(config):
        if problem.fatal:
            raise ConfigError(problem.sentence)
        _say(f"warning: {problem.sentence}")
    return build_run(config)


def _train(
    run: Run,
    config: dict[str, Any],
    folder: RunFolder,
    engines: EnginePool,
    interrupt: Callable[[], bool],
    at_end: contextlib.ExitStack,
) -> int:
    """Train; whatever happens is in ``status.json`` afterwards, and a crash also in ``attempts/<n>/traceback``."""
    from trainer.loop import train
    from trainer.mirror import Mirror
    from trainer.provenance import describe_run

    mirror: Mirror | None = None

    def durable(step: int) -> None:
        nonlocal mirror
        mirror = mirror or Mirror(folder, config)  # not before the loop has cut off what it will compute again
        with folder.timing("mirror"):
            mirror.mark_durable(step)

    if not folder.writable:
        return EXIT_CODES[train(run, folder, engines, interrupted=interrupt)]

    state, message, code = "FAILED", "", EXIT_CODES["FAILED"]
    try:
        with room_for(folder.path):  # also for what is written elsewhere on a full disk, such as the progress
            folder.write_status("RUNNING", (folder.read_status() or {}).get("step", 0), run.steps)
            describe_run(folder.path, config)
            state = train(run, folder, engines, interrupted=interrupt, durable=durable, progress=print_progress)
        code = EXIT_CODES[state]
    except (ConfigError, OutOfSpace) as error:
        message = str(error)
        code = BAD_CONFIGURATION if isinstance(error, ConfigError) else code
        _say(message)
    except KeyboardInterrupt:
        state, message = "CANCELLED", "interrupted from the keyboard"
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        _keep(folder, error)
        engines.close()  # a request may still be in it, and the next run must not pay for this one
    finally:
        with contextlib.suppress(OutOfSpace):  # then the old status stands, and its dead process says enough
            step = run.steps if state == "COMPLETED" else (folder.read_status() or {}).get("step", 0)
            folder.write_status(state, step, run.steps, message)
        mirror = mirror or Mirror(folder, config)
        mirror.end()
        at_end.callback(mirror.close)
    return code


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
    _say("  ".join(parts), sys.stdout)


def _say(text: str, stream: TextIO | None = None) -> None:
    """A line to a person, on standard error unless told: nobody listening, or a log on a full disk, stops no run."""
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stderr, flush=True)


def _let_go() -> None:
    """Forget output that found no room: Python would try again at its end, fail, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _keep(folder: RunFolder, error: Exception) -> None:
    """Write down the traceback of a crash, and the mini-batch of a loss that was not finite, where there is room."""
    import torch

    from trainer.update import NonFiniteLoss

    text = traceback.format_exc()
    _say(text)
    with contextlib.suppress(OSError):
        attempt = folder.path / "attempts" / str(folder.attempt)
        attempt.mkdir(parents=True, exist_ok=True)
        (attempt / "traceback").write_text(text)
    if isinstance(error, NonFiniteLoss):
        columns = {name: getattr(error.batch, name) for name in error.batch.__slots__}
        with contextlib.suppress(OSError, RuntimeError):  # torch.save turns a full disk into the latter
            torch.save(columns, folder.path / "nonfinite_batch.pt")


if __name__ == "__main__":
    code = main()
    _let_go()
    sys.exit(code)
