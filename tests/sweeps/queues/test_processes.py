"""Finding and ending every process of a job."""

from __future__ import annotations

import os
import subprocess
import sys

from waiting import wait_for

from sweeps.queues.processes import MARK, children, kill_marked, marked

FAMILY = """
import subprocess, sys, time
inner = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
time.sleep(600)
"""  # noqa: E501
"""A process with a child in a session of its own, which has one in yet another: as ranks and engines are started."""


def test_a_mark_reaches_grandchildren_in_sessions_of_their_own_even_when_orphaned() -> None:
    mark = f"local:test-{os.getpid()}"
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], env=os.environ | {MARK: mark}, start_new_session=True)
    other = subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: f"{mark}0"})
    wait_for(lambda: len(marked(mark)) == 3)
    parent.kill()
    parent.wait()
    assert len(marked(mark)) == 2, "orphans keep their mark"
    kill_marked(mark)
    assert marked(mark) == []
    assert marked(f"{mark}0") == [other.pid], "a mark that only begins alike is another's"
    kill_marked(f"{mark}0")
    other.wait()


def test_children_are_those_of_one_parent_only() -> None:
    child = subprocess.Popen(["sleep", "600"])
    assert child.pid in children(os.getpid())
    assert children(child.pid) == []
    child.kill()
    child.wait()
