"""Scores of responses by verifiers in parallel processes, with a time limit for each response.

A verifier that hangs, crashes or raises costs its own score and no more: its process is killed, a new one takes the
next response, and the failure is reported. It must not know what the scores are for.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.runtime.signals import signals_held_back

START_SECONDS = 120.0
"""For the imports of a verifier, on a busy machine."""
MOST_WORKERS = 8
_ROOT = Path(__file__).resolve().parents[2]

Scores = dict[str, float | None]
"""By verifier; None where it failed."""


class VerifierPool:
    """Processes for one set of verifiers, started when they are first needed."""

    def __init__(self, verifiers: Mapping[str, Any], seconds: float, workers: int) -> None:
        self._names = list(verifiers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verifier")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [
            _Worker(json.dumps({"verifiers": verifiers, "seconds": seconds}), seconds) for _ in range(workers)
        ]
        for worker in self._workers:
            self._idle.put(worker)

    def scores(self, requests: Sequence[tuple[str, Mapping[str, object]]]) -> list[Scores]:
        """Scores of every (response, data), in order."""
        return list(self._threads.map(self._one, requests))

    def _one(self, request: tuple[str, Mapping[str, object]]) -> Scores:
        worker = self._idle.get()
        try:
            answer = worker.ask(json.dumps(request))
        finally:
            self._idle.put(worker)
        return answer if isinstance(answer, dict) else dict.fromkeys(self._names)

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, started again after it was killed."""

    def __init__(self, start: str, seconds: float) -> None:
        self._start, self._seconds = start, seconds
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, line: str) -> Any:
        """The answer to one line, or None from a process that hung or died. One that died idle is started anew."""
        child = self._child
        if child is None or child.poll() is not None:
            self.close()
            child = self._child = self._started()
            if self._exchange(child, self._start, START_SECONDS) != "ready":
                self.close()
                return None
        answer = self._exchange(child, line, self._seconds)
        if answer is None:
            self.close()
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with signals_held_back():
            child = subprocess.Popen(
                [sys.executable, "-m", "trainer.tasks.verifier_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # so that whatever a verifier starts goes with it
            )
        assert child.stdin is not None
        os.set_blocking(child.stdin.fileno(), False)
        return child

    @staticmethod
    def _exchange(child: subprocess.Popen[bytes], line: str, seconds: float) -> Any:
        """Send a line and read one; None at the end of the pipe or of the time."""
        assert child.stdin is not None and child.stdout is not None
        send, answer, deadline = line.encode() + b"\n", b"", time.monotonic() + seconds
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, writable, _ = select.select([child.stdout], [child.stdin] if send else [], [], max(0.0, left))
            if left <= 0 or not (readable or writable):
                return None
            if writable:
                try:
                    send = send[os.write(child.stdin.fileno(), send) :]
                except BrokenPipeError:
                    return None
            if readable:
                part = os.read(child.stdout.fileno(), 65536)
                if not part:
                    return None
                answer += part
        return json.loads(answer)

    def close(self) -> None:
        """Kill the process and all it started."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@functools.lru_cache(maxsize=8)
def _shared(verifiers: str, seconds: float, owner: int) -> VerifierPool:
    pool = VerifierPool(json.loads(verifiers), seconds, min(MOST_WORKERS, len(os.sched_getaffinity(0))))
    atexit.register(pool.close)
    return pool


def shared_pool(verifiers: Mapping[str, Any], seconds: float) -> VerifierPool:
    """The pool of this process for these verifiers. A fork gets its own: two must not share a pipe."""
    return _shared(json.dumps(verifiers, sort_keys=True), seconds, os.getpid())
