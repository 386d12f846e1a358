"""A Slurm cluster of one node in a folder: configuration written, daemons started and stopped as our own children.

Used by ``tests/end_to_end/test_slurm.py``. It needs Debian's packages ``slurm-wlm`` and ``munge`` and root; no systemd,
no cgroups, no database, no accounting. Ports, sockets and keys are its own, so a real cluster beside it is not touched.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

CONFIGURATION = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
ReturnToService=2
KillWait=5
MinJobAge=600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mib} Gres=gpu:2 State=UNKNOWN
PartitionName=low  Nodes={host} Default=YES State=UP PriorityTier=1  PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes={host} Default=NO  State=UP PriorityTier=10 PreemptMode=OFF
"""
"""``preempt_send_user_signal``: a job that has to make room gets USR2 first. GPUs are files that are always there, and
``config_overrides`` lets the node claim more cores than it has, so that a cap is not mistaken for the want of them."""

CPUS = 8


class NoCluster(Exception):
    """Why there can be no cluster here, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """A running cluster."""

    folder: Path

    def ask(self, *command: str) -> str:
        """Output of a Slurm command."""
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    def states(self) -> dict[str, str]:
        """State by job, ``17_0`` for a member of an array; jobs that have ended are there for ten minutes."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def start_now(self, job: str) -> None:
        """Lift the two minutes that a job waits after it was queued again."""
        time.sleep(2)  # a credential of the second in which the last one was revoked is taken for that one
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait_for_state(self, job: str, *states: str, seconds: float = 60.0) -> str:
        """Until ``job`` is in one of ``states``; that state."""
        end = time.monotonic() + seconds
        while (state := self.states().get(job, "")) not in states:
            assert time.monotonic() < end, f"job {job} is {state or 'gone'}, not {' or '.join(states)}"
            time.sleep(0.1)
        return state


@contextlib.contextmanager
def slurm_node(folder: Path) -> Iterator[SlurmNode]:
    """A cluster in ``folder``, ``SLURM_CONF`` pointing at it; :class:`NoCluster` where it cannot be had."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoCluster(f"{', '.join(missing)} not installed (Debian: slurm-wlm munge)")
    if os.geteuid() != 0:
        raise NoCluster("slurmd needs root")
    _write_configuration(folder)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _start(folder, daemons)
        yield SlurmNode(folder=folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            _end(daemon)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _write_configuration(folder: Path) -> None:
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid():  # munge trusts no folder that others may look into or change
            parent.chmod(parent.stat().st_mode | 0o011)
    (folder / "munge").chmod(0o755)
    with open(folder / "munge" / "key", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as key:
        key.write(os.urandom(128))
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=_free_port(),
            node_port=_free_port(),
            cpus=CPUS,
            memory_mib=memory_mib,
        )
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")


def _start(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    munge = folder / "munge"
    files = [f"--{name}={munge / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    commands = (
        ["munged", "--foreground", "--force", f"--key-file={munge / 'key'}", *files],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    )
    ready: tuple[Callable[[], bool], ...] = (
        lambda: (munge / "socket").exists(),
        lambda: _succeeds("scontrol", "ping"),
        lambda: _answer("sinfo", "-h", "-o", "%t").split() == ["idle"],
    )
    for command, is_ready in zip(commands, ready, strict=True):
        with (folder / f"{command[0]}.log").open("wb") as log:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        end = time.monotonic() + 20
        while not is_ready():
            if time.monotonic() > end or daemons[-1].poll() is not None:
                lines = (folder / f"{command[0]}.log").read_text().strip().splitlines()
                raise NoCluster(f"{command[0]} did not start: {lines[-1] if lines else 'no message'}")
            time.sleep(0.05)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    try:
        daemon.wait(15)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def _succeeds(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and "DOWN" not in done.stdout


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
