"""Which process holds a run, and whether it is alive: by lock, scheduler, process and heartbeat.

A run counts as dead only if all of these say so. A job of a scheduler that was not asked counts as unknown.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

from trainer.contract.files import take
from trainer.contract.run_folder import last_job
from trainer.contract.status import UNFINISHED, Status

BEAT_S = 10.0
"""Seconds between two heartbeats."""

SILENT_S = 60.0
"""Age from which a heartbeat says nothing any more: it outlasts what network file systems keep in their caches."""

CLOCK_SLACK_S = 2.0
"""The kernel tells the time of its start in whole seconds, and clocks are set."""

HANDED_ON = "RLVR_RUN_LOCK"
"""Environment variable by which a holder tells the processes it starts that they act for it: its ``token``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a run, as it says in ``.lock``."""

    pid: int
    host: str
    since: float
    """Unix seconds."""
    token: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


def lock(run_dir: Path, patience_s: float = 1.0) -> IO[str] | None:
    """Take the run for this process; None when somebody has it. The kernel lets go when the last holder ends.

    A trainer started with this descriptor keeps the run taken even if the holder is killed. ``patience_s`` outlasts
    :func:`is_locked`, which holds the lock for a moment.
    """
    handle = (run_dir / ".lock").open("a")
    if not take(handle, fcntl.LOCK_EX, patience_s):
        handle.close()
        return None
    holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time(), token=_token())
    with contextlib.suppress(OSError):  # a full disk: the lock is held all the same, only nobody can say by whom
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), (json.dumps(asdict(holder)) + "\n").encode())
    return handle


_TOKENS: dict[int, str] = {}


def _token() -> str:
    """A word for this process, which a fork does not share."""
    return _TOKENS.setdefault(os.getpid(), uuid.uuid4().hex)


def handed_on() -> dict[str, str]:
    """Environment for a process that works on runs which this one has locked."""
    return {HANDED_ON: _token()}


def holder(run_dir: Path) -> Holder | None:
    """Who took the lock last; None where nobody can say."""
    try:
        content = json.loads((run_dir / ".lock").read_text())
        return Holder(**{field.name: content[field.name] for field in fields(Holder)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_locked(run_dir: Path) -> bool:
    """Whether somebody has the run at this moment."""
    if not (run_dir / ".lock").exists():
        return False
    with (run_dir / ".lock").open() as handle:
        return not take(handle, fcntl.LOCK_SH)


class Taken(Exception):
    """Another process has the run; the message says which."""


@contextmanager
def holding(run_dir: Path) -> Iterator[None]:
    """Have the run within the block and show signs of life: by its lock, or for the process that handed it on.

    Raises :class:`Taken`.
    """
    handle = lock(run_dir)
    owner = holder(run_dir)
    if handle is None and (owner is None or owner.token != os.environ.get(HANDED_ON)):
        raise Taken(f"{run_dir} is being trained by {owner or 'another process'}: nothing was done")
    over = threading.Event()
    beating = threading.Thread(target=_beat_until, args=(run_dir, over), name="heartbeat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        if handle is not None:
            handle.close()


def _beat_until(run_dir: Path, over: threading.Event) -> None:
    while True:
        with contextlib.suppress(OSError):  # a full disk must not end the run
            beat(run_dir)
        if over.wait(BEAT_S):
            return


def beat(run_dir: Path) -> None:
    """Leave a sign of life."""
    path, now = run_dir / "heartbeat", time.time()
    path.touch()
    os.utime(path, (now, now))


def silent_s(run_dir: Path) -> float | None:
    """Seconds since the last sign of life of a run; None before the first."""
    try:
        return max(0.0, time.time() - (run_dir / "heartbeat").stat().st_mtime)
    except FileNotFoundError:
        return None


def has_heartbeat(run_dir: Path) -> bool:
    """Whether there was a sign of life lately."""
    silence = silent_s(run_dir)
    return silence is not None and silence < SILENT_S


def is_alive(run_dir: Path, status: Status, listed: Callable[[str], bool | None] = lambda job: None) -> bool | None:
    """Whether somebody is going to move this run on; None where nobody here can tell.

    ``listed`` is what a scheduler says of a job. A local queue needs none: elsewhere, or after the host was renamed, a
    free lock and an old heartbeat decide.
    """
    if status.state not in UNFINISHED:
        return False
    if is_locked(run_dir):
        return True
    if (run_dir / "status.json").exists() and (run_dir / "status.json").stat().st_uid != os.geteuid():
        return None  # squeue and the kernel answer for our own jobs only
    same_host, job = status.host == socket.gethostname(), job_of(run_dir, status)
    if is_slurm(job):
        # Locks do not reach through every network file system, so a job elsewhere with a fresh heartbeat is believed.
        alive = listed(str(job))
        return True if alive is False and not same_host and has_heartbeat(run_dir) else alive
    if status.state == "PREEMPTED":  # only a scheduler takes a run up again by itself
        return False
    if same_host:
        return status.pid is not None and _is_writer(status.pid, status.time)
    return has_heartbeat(run_dir) or time.time() - status.time < SILENT_S


def job_of(run_dir: Path, status: Status) -> str | None:
    """The queue's name for the job that has a run. While QUEUED that is not the one of an earlier attempt."""
    return status.job if status.state == "QUEUED" else status.job or last_job(run_dir)


def is_slurm(job: str | None) -> bool:
    """Whether a job is one that Slurm can be asked about."""
    return job is not None and job.startswith("slurm:")


def _is_writer(pid: int, when: float) -> bool:
    """Whether process ``pid`` lives and may have written something at ``when``, in Unix seconds.

    One that began later is a stranger that got the number.
    """
    if not Path("/proc/stat").exists():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return True
        return False
    began = _began(pid)
    return began is not None and began < when + CLOCK_SLACK_S


def _began(pid: int) -> float | None:
    """Unix seconds at which process ``pid`` began; None for one that is gone, or dead and not yet collected."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in "ZX":
        return None
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot.split()[1]) + int(numbers[18]) / os.sysconf("SC_CLK_TCK")  # proc(5): field 22, starttime
