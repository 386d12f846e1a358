"""A queued job: runs the trainer on several run folders in one process, and restarts it when one run crashes.

Submitit executes it inside the job, as a local process or on Slurm. It imports neither torch nor Hydra nor MLflow, and
learns what happened from exit codes and status files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from submitit.helpers import DelayedSubmission

from sweeps.queues.exit_reason import last_error_line, signal_of_rank, state_after_signal
from sweeps.queues.gpus import visible_gpus
from sweeps.queues.processes import MARK, children
from sweeps.queues.scheduler import job_name
from sweeps.runs.run_folder import read_run
from trainer.contract.liveness import BEAT_S, beat, handed_on, lock
from trainer.contract.paths import ROOT
from trainer.contract.run_folder import is_cancelled, last_attempt, next_attempt, stop_request
from trainer.contract.settings import ConfigError
from trainer.contract.status import FINISHED, ExitCode, Status, read_status, write_status

BAD_ENDS = ("FAILED", "LOST")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals on which the trainer is asked to finish its step, save and exit. Submitit handles SIGUSR2: ``checkpoint``."""


class RunsFailed(RuntimeError):
    """Raised at the end of a job some of whose runs failed, so that the scheduler shows the job as failed too."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Runs that share one trainer process, so that start-up is paid once. Submitit pickles it and calls it."""

    run_dirs: tuple[str, ...]
    trainer: tuple[str, ...] = ("-m", "trainer")
    """Arguments after the Python executable that start the trainer."""
    grace_s: float = 120.0
    """Seconds that a preempted trainer has to save."""

    def __call__(self) -> dict[str, str]:
        """Train every run to its end; returns the state of each run folder, or raises :class:`RunsFailed`."""
        _ASKED.clear()
        previous = {number: signal.signal(number, _ask_to_leave) for number in SIGNALS}
        locks = {run_dir: handle for run_dir in map(Path, self.run_dirs) if (handle := lock(run_dir)) is not None}
        try:
            waiting = [run_dir for run_dir in locks if _wanted(run_dir)]
            while waiting:
                code = self._run(waiting, [locks[run_dir].fileno() for run_dir in waiting])
                waiting = _after(waiting, code)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        states = {run_dir: _state(Path(run_dir)) for run_dir in self.run_dirs}
        failed = [Path(run_dir).name for run_dir, state in states.items() if state in BAD_ENDS]
        if failed:
            raise RunsFailed(f"{len(failed)} of {len(states)} runs failed: {', '.join(failed)}; see their attempts/")
        return states

    def checkpoint(self) -> DelayedSubmission:
        """Called by Submitit on preemption, during ``__call__``: let the trainer save, then requeue this job."""
        end = time.monotonic() + self.grace_s
        while _CHILDREN and time.monotonic() < end:
            _ask_to_leave(signal.SIGUSR2, None)  # again and again: a trainer that is just starting ignores it
            if _has_ended(_CHILDREN[0].process, patience_s=1.0):
                break
        return DelayedSubmission(self)

    def _run(self, run_dirs: Sequence[Path], locks: Sequence[int]) -> int:
        """One trainer process over ``run_dirs``; returns its exit code."""
        hardware: Mapping[str, Any] = read_run(run_dirs[0]).get("hardware") or {}
        ranks = _ranks(hardware)
        threads = str(hardware.get("num_threads") or 1)  # before the trainer says so: imports and the engine's start
        search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with _logs(run_dirs) as (out, err):
            process = subprocess.Popen(
                [sys.executable, *ranks, *self.trainer, *map(str, run_dirs)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | {"PYTHONPATH": search_path, "OMP_NUM_THREADS": threads} | handed_on(),
                pass_fds=tuple(locks),
                preexec_fn=_ignore_signals,
            )
            _CHILDREN.append(_Child(process=process, has_ranks=bool(ranks)))
            try:
                return _wait(process, run_dirs)
            finally:
                _CHILDREN.clear()


def _ranks(hardware: Mapping[str, Any]) -> list[str]:
    gpus = hardware.get("device") != "cpu" and bool(visible_gpus())
    return rank_command(int(hardware.get("processes", 1)), gpus=gpus)


def rank_command(processes: int, *, gpus: bool) -> list[str]:
    """Arguments after the Python executable that start the module named after them in ``processes`` ranks.

    ``torchrun`` on a CPU, because ``accelerate launch`` would silently start one rank there.
    """
    if processes == 1:
        return []
    if gpus:
        return ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    process: subprocess.Popen[bytes]
    has_ranks: bool
    """Whether the process only starts the ranks, which are its children."""

    def ask_to_leave(self) -> None:
        """Ask the trainer to finish its step: its ranks are signalled, because ``torchrun`` would kill them."""
        with contextlib.suppress(ProcessLookupError):
            for pid in children(self.process.pid) if self.has_ranks else [self.process.pid]:
                os.kill(pid, signal.SIGUSR2)


_CHILDREN: list[_Child] = []
"""The running trainer; global because signal handlers take no further arguments."""

_ASKED: list[int] = []
"""Signals that this job has received."""


def _ask_to_leave(number: int, frame: object) -> None:
    _ASKED.append(number)
    for child in _CHILDREN:
        child.ask_to_leave()


def _ignore_signals() -> None:
    """Runs in the trainer's process before Python starts: Slurm signals all processes, which would kill it."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _wait(process: subprocess.Popen[bytes], run_dirs: Sequence[Path]) -> int:
    """Wait for ``process`` and return its exit code; meanwhile write the heartbeats of its runs."""
    while True:
        with contextlib.suppress(OSError):  # a full disk must not end the job
            for run_dir in run_dirs:
                beat(run_dir)
        try:
            return process.wait(timeout=BEAT_S)
        except subprocess.TimeoutExpired:
            continue


def _has_ended(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    """Whether ``process`` ends in time. ``poll()`` would block in a signal handler that interrupted ``wait()``."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:
            return True
        time.sleep(0.05)
    return False


def _wanted(run_dir: Path) -> bool:
    """Whether a run is to be trained: False if it is complete, was cancelled before its start, or is unreadable."""
    try:
        status = read_status(run_dir)
    except ConfigError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    if status is not None and status.state == "COMPLETED":
        return False
    if stop_request(run_dir) is not None:
        write_status(run_dir, "CANCELLED", message="stopped before it started")
        return False
    return True


@contextmanager
def _logs(run_dirs: Sequence[Path]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Output files of one trainer process, hard-linked into a new attempt folder of each of its runs."""
    attempts = [next_attempt(run_dir) for run_dir in run_dirs]
    for run_dir, attempt in zip(run_dirs, attempts, strict=True):
        (attempt / "job").write_text(_job_name())
        job = {"pid": os.getpid(), "host": socket.gethostname(), "job": _job_name()}
        startup = (("importing", time.time()),) if run_dir == run_dirs[0] else ()  # the others come after it
        write_status(run_dir, "QUEUED", attempt=int(attempt.name), message=None, startup=startup, **job)
    with (attempts[0] / "out").open("ab") as out, (attempts[0] / "err").open("ab") as err:
        for other in attempts[1:]:
            os.link(attempts[0] / "out", other / "out")
            os.link(attempts[0] / "err", other / "err")
        yield out, err


def _after(run_dirs: Sequence[Path], code: int) -> list[Path]:
    """The runs that still have to be trained after a trainer exited with ``code``.

    The run that it was training gets a final state, unless the trainer wrote one. Every call closes at least one run,
    so a trainer that cannot start fails each run once. After a signal to the job no further run is started.
    """
    leaving = bool(_ASKED) or code == ExitCode.PREEMPTED or any(_state(run_dir) == "PREEMPTED" for run_dir in run_dirs)
    unfinished = [run_dir for run_dir in run_dirs if _state(run_dir) not in FINISHED]
    for run_dir in run_dirs:
        if _state(run_dir) == "FAILED":
            _keep_traceback(run_dir)
    at_work = [run_dir for run_dir in unfinished if _state(run_dir) == "RUNNING"]
    if not at_work and len(unfinished) == len(run_dirs) and not leaving:
        at_work = unfinished[:1]
    for run_dir in at_work:
        _close(run_dir, code)
    if not leaving:
        return [run_dir for run_dir in unfinished if run_dir not in at_work and _wanted(run_dir)]
    for run_dir in unfinished:
        if _state(run_dir) == "QUEUED" and _wanted(run_dir) and not _is_slurm():  # a Slurm job comes back for them
            write_status(run_dir, "PLANNED", message="its job was stopped before it began", job=None)
    return []


def _is_slurm() -> bool:
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def _job_name() -> str:
    """The name of this job in status files; see :func:`sweeps.queues.liveness.is_alive`."""
    if not _is_slurm():
        return os.environ.get(MARK, f"local:{os.getpid()}")
    array, member = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = f"{array}_{member}" if array and member else os.environ["SLURM_JOB_ID"]
    return job_name(number, os.environ.get("SLURM_CLUSTER_NAME", ""))


def _state(run_dir: Path) -> str:
    try:
        status = read_status(run_dir)
    except ConfigError:  # damaged: whoever looks at it next says so, and its neighbours go on
        return "FAILED"
    return status.state if status else "PLANNED"


def _close(run_dir: Path, code: int) -> Status:
    """Record the final state of a run whose trainer exited without doing so."""
    text = _keep_traceback(run_dir)
    number = -code if code < 0 else signal_of_rank(text)
    if code == ExitCode.STOPPED or is_cancelled(run_dir):
        state, message = "CANCELLED", "stopped on request"
    elif number is not None:
        state, message = state_after_signal(number)
    else:
        state, message = "FAILED", last_error_line(text) or f"the trainer left with exit code {code}"
    return write_status(run_dir, state, message=message, host=socket.gethostname())


def _keep_traceback(run_dir: Path) -> str:
    """The traceback of the newest attempt; taken from standard error unless the trainer wrote the file itself."""
    attempt = last_attempt(run_dir)
    if attempt is None:
        return ""
    path = attempt / "traceback"
    if not path.exists():
        text = (attempt / "err").read_text(errors="replace")
        start = text.rfind("Traceback (most recent call last)")
        path.write_text(text[start:] if start >= 0 else text[-2000:])
    return path.read_text(errors="replace")
