"""Asks Slurm for the states of this user's jobs, with one call of ``squeue`` for all (``sacct`` may be disabled).

A job with an unknown state counts as alive.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"}
)
"""Final states of a job; a job in any other state counts as alive."""

PATIENCE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """An answer of ``squeue``."""

    cluster: str
    """Name of the cluster that was asked; empty when that could not be found out."""
    states: Mapping[str, str]
    """State by job, ``17_3`` for a member of an array; jobs that ended long ago are not listed."""

    def has(self, job: str) -> bool | None:
        """Whether ``job`` (``slurm:17_3@cluster``) waits or runs; None for one of another cluster."""
        if not self._is_asked_about(job):
            return None
        state = self.states.get(_number(job))
        return state is not None and state not in ENDED

    def end_of(self, job: str) -> str | None:
        """The state in which ``job`` ended, while Slurm remembers it."""
        state = self.states.get(_number(job)) if self._is_asked_about(job) else None
        return state if state in ENDED else None

    def _is_asked_about(self, job: str) -> bool:
        cluster = job.partition("@")[2]
        return not cluster or not self.cluster or cluster == self.cluster


def _number(job: str) -> str:
    return job.removeprefix("slurm:").partition("@")[0]


def job_name(number: str, cluster: str) -> str:
    """``slurm:17_3@cluster``, the name under which a run folder remembers its job."""
    return f"slurm:{number}@{cluster}" if cluster else f"slurm:{number}"


def ask() -> Scheduler | None:
    """What ``squeue`` says of this user's jobs; None when there is none, or it does not answer."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i %T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:
        return None
    words = [line.split() for line in answer.stdout.splitlines() if line.strip()]
    states = {line[0]: line[1] if len(line) > 1 else "" for line in words}
    return Scheduler(cluster=cluster_name(), states=states)


def cluster_name() -> str:
    """What this cluster is called; empty when it cannot be found out."""
    return os.environ.get("SLURM_CLUSTER_NAME") or setting("ClusterName")


@functools.cache
def setting(name: str) -> str:
    """A value of ``scontrol show config``; empty when it cannot be found out."""
    if shutil.which("scontrol") is None:
        return ""
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return ""
    match = re.search(rf"^{name}\s*= (\S+)", answer.stdout, re.MULTILINE)
    return match[1] if match else ""


def num_nodes(partition: str | None) -> int | None:
    """Nodes of a partition, of the whole cluster without one; None when Slurm does not say."""
    if shutil.which("sinfo") is None:
        return None
    chosen = ["--partition", partition] if partition else []
    try:
        answer = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%n", *chosen], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return None
    return len(set(answer.stdout.split())) or None
