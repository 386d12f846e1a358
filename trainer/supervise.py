"""The process around training: locks each run, trains the runs one after another, writes how each of them ended.

It must not know what a step is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from trainer.contract.errors import unusable
from trainer.contract.files import OutOfSpace, room_for
from trainer.contract.identity import SCHEMA
from trainer.contract.liveness import Taken, holding
from trainer.contract.run_folder import last_number
from trainer.contract.settings import ConfigError, require
from trainer.contract.status import EXIT_CODES, ExitCode, Status
from trainer.storage.record import RunFolder

if TYPE_CHECKING:
    from trainer.engine.base import EnginePool
    from trainer.setup.build import Run

WORST = (
    ExitCode.DONE,
    ExitCode.STOPPED,
    ExitCode.PREEMPTED,
    ExitCode.TAKEN,
    ExitCode.BAD_CONFIGURATION,
    ExitCode.CRASHED,
    ExitCode.INTERRUPTED,
)
"""Exit codes of a run, the worst last."""


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
                codes.append(ExitCode.PREEMPTED if interrupt() else run_one(folder, engines, interrupt, at_end))
        finally:
            engines.close()
    return max(codes, key=WORST.index)


def run_one(folder: RunFolder, engines: EnginePool, interrupt: Callable[[], bool], at_end: contextlib.ExitStack) -> int:
    """Check and train one folder; returns its exit code. What cannot run is one sentence, no more.

    What may go on beside the next run is waited for ``at_end``.
    """
    try:
        folder.require_shape()
        if _is_complete(folder):
            return ExitCode.DONE
        is_run = folder.writable and folder.config_file.is_file()  # nothing is written into a folder given by mistake
        with holding(folder.path) if is_run else contextlib.nullcontext():
            if _is_complete(folder):  # by whoever had it until now
                return ExitCode.DONE
            return _check_and_train(folder, engines, interrupt, at_end)
    except Taken as taken:
        say(str(taken))
        return ExitCode.TAKEN
    except ValueError as error:
        say(str(error))
        return ExitCode.BAD_CONFIGURATION
    except OSError as error:
        say(error_message(error, folder.path))
        return ExitCode.CRASHED


def _is_complete(folder: RunFolder) -> bool:
    status = folder.read_status()
    return status is not None and status.state == "COMPLETED"


def _check_and_train(
    folder: RunFolder, engines: EnginePool, interrupt: Callable[[], bool], at_end: contextlib.ExitStack
) -> int:
    try:
        config = folder.config()
        folder.begin_phase("checking", first=True)
        run = _checked(config)
    except ValueError as error:
        if folder.config_file.is_file():
            status = folder.read_status() or Status(state="FAILED")
            with contextlib.suppress(OutOfSpace):
                folder.write_status("FAILED", status.step, status.steps, str(error))
        raise
    return _train(run, config, folder, engines, interrupt, at_end)


def _checked(config: dict[str, Any]) -> Run:
    """The run of a configuration; warnings are printed, the first problem is raised as :class:`ConfigError`."""
    from trainer.setup.build import build_run
    from trainer.setup.checks import problems

    old = "another version of this program made this run folder; start the sweep again, which makes one of its own"
    require(config.get("schema") == SCHEMA, "schema", config.get("schema", 1), old)
    for problem in problems(config):
        if problem.fatal:
            raise ConfigError(problem.message)
        say(f"warning: {problem.message}")
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
    from trainer.storage.provenance import describe_run
    from trainer.tracking.mirror import Mirror

    mirror: Mirror | None = None

    def durable(step: int) -> None:
        nonlocal mirror
        mirror = mirror or Mirror(folder, config)  # not before the loop has cut off what it will compute again
        with folder.timing("mirror"):
            mirror.mark_durable(step)

    if not folder.writable:
        return EXIT_CODES[train(run, folder, engines, interrupted=interrupt)]

    state, message, code = "FAILED", "", ExitCode.CRASHED
    try:
        with room_for(folder.path):  # also for what is written elsewhere on a full disk, such as the progress
            folder.write_status("RUNNING", _step(folder), run.steps)
            describe_run(folder.path, config, run.task.notes())
            state = train(run, folder, engines, interrupted=interrupt, durable=durable, progress=print_progress)
        code = EXIT_CODES[state]
    except (ConfigError, OutOfSpace) as error:
        message = str(error)
        code = ExitCode.BAD_CONFIGURATION if isinstance(error, ConfigError) else code
        say(message)
    except KeyboardInterrupt:
        state, message = "CANCELLED", "interrupted from the keyboard"
        raise
    except Exception as error:
        message = error_message(error, folder.path)
        if message.startswith(type(error).__name__):
            _keep(folder, error)
        else:
            say(message)
        engines.close()  # a request may still be in it, and the next run must not pay for this one
    finally:
        with contextlib.suppress(OutOfSpace):  # then the old status stands, and its dead process says enough
            folder.write_status(state, run.steps if state == "COMPLETED" else _step(folder), run.steps, message)
        mirror = mirror or Mirror(folder, config)
        mirror.end()
        at_end.callback(mirror.close)
    return code


def _step(folder: RunFolder) -> int:
    status = folder.read_status()
    return status.step if status is not None else 0


def error_message(error: Exception, folder: Path) -> str:
    """What a person is told of an error: a file of the run folder that cannot be used is named, no more."""
    where = str(getattr(error, "filename", None) or "")
    if isinstance(error, OSError) and error.strerror and where.startswith(str(folder)):
        return unusable(error)
    return f"{type(error).__name__}: {error}"


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
    say("  ".join(parts), sys.stdout)


def say(text: str, stream: TextIO | None = None) -> None:
    """A line to a person, on standard error unless told: nobody listening, or a log on a full disk, stops no run."""
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stderr, flush=True)


def _keep(folder: RunFolder, error: Exception) -> None:
    """Write down the traceback of a crash, and the mini-batch of a loss that was not finite, where there is room."""
    import torch

    from trainer.update.update import NonFiniteLoss

    text = traceback.format_exc()
    say(text)
    with contextlib.suppress(OSError):
        attempt = folder.path / "attempts" / str(max(1, last_number(folder.path)))
        attempt.mkdir(parents=True, exist_ok=True)
        (attempt / "traceback").write_text(text)
    if isinstance(error, NonFiniteLoss):
        columns = {name: getattr(error.batch, name) for name in error.batch.__slots__}
        with contextlib.suppress(OSError, RuntimeError):  # torch.save turns a full disk into the latter
            torch.save(columns, folder.path / "nonfinite_batch.pt")
