"""A process beside the run that copies its folder to MLflow while the run goes on.

The loop holds a :class:`Mirror`, whose process runs :func:`follow`. A process and not a thread, because mlflow in a
thread held the GIL, and so a training step, for up to 0.3 s. Must never raise into, or wait in, a step.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from trainer.contract.errors import reason
from trainer.contract.paths import ROOT
from trainer.runtime.signals import signals_held_back
from trainer.storage.record import RunFolder

LONGEST_PAUSE_S = 60.0
"""Between two tries while MLflow cannot be reached."""

LINGER_S = 30.0
"""How long the process goes on trying after MLflow last took something, once the run has ended or died. One that has
been away for longer gets a single last try, so that a short run does not wait for it."""

log = logging.getLogger(__name__)


class Mirror:
    """Copies from its creation, which has to follow :meth:`RunFolder.truncate`, to :meth:`close`.

    Without ``tracking.uri`` it does nothing. The folder's files are the queue; the process is told two things only:
    which step is durable and, by the end of its input, that the run has ended, whatever it died of.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        if not (config.get("tracking") or {}).get("uri"):
            return
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with signals_held_back():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.tracking.mirror", str(folder.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                env=os.environ | {"PYTHONPATH": path},
            )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def mark_durable(self, step: int) -> None:
        """Steps up to ``step`` can no longer be computed again (a checkpoint holds them), so they may be copied."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(b"%d\n" % step)  # to a full pipe nothing is written: a later step says more
        except BrokenPipeError:  # the process has died, and close() will say so
            return

    def end(self) -> None:
        """The run is over and ``status.json`` says how: copy the rest. Does not wait."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def close(self, timeout: float = 60.0) -> bool:
        """:meth:`end`, and wait until everything is in MLflow; True if all of it got there."""
        if self._process is None:
            return True
        self.end()
        try:
            complete = self._process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            complete = False
        if not complete:
            path = self._folder.path
            log.warning("MLflow lacks a part of this run; `python -m trainer --sync %s` fills it from the files", path)
        return complete


def follow(run_dir: str, source: int) -> int:
    """Copy ``run_dir`` until ``source``, a file descriptor with the durable steps, ends; 0 if all of it got there."""
    from trainer.tracking.mlflow_copy import MlflowCopy, one_copier

    folder = RunFolder(run_dir)
    config = folder.config()
    tracking = config["tracking"]
    period = pause = float(tracking.get("flush_every_s", 5.0))
    complained: set[str] = set()
    durable, ended, worked = -1, False, time.monotonic()
    with one_copier(folder):
        copy = MlflowCopy(folder, config, tracking["uri"])
        while True:
            try:
                if ended:
                    copy.finish(durable)
                    return 0
                copy.advance(durable)
                pause, worked = period, time.monotonic()
            except Exception as error:  # the boundary: the record is on disk, so a failed copy is only late
                _complain(error, tracking["uri"], complained)
                copy.reopen()
                pause = min(2 * pause, LONGEST_PAUSE_S)
                if ended and time.monotonic() > worked + LINGER_S:
                    return 1
            if ended:
                time.sleep(min(pause, 1.0))
                continue
            steps, ended = _listen(source, pause)
            durable = max(durable, *steps, -1)


def _listen(source: int, seconds: float) -> tuple[list[int], bool]:
    """The steps that arrive within ``seconds``, and whether the other side has ended, which is not waited for."""
    until = time.monotonic() + seconds
    steps: list[int] = []
    while select.select([source], [], [], max(0.0, until - time.monotonic()))[0]:
        lines = os.read(source, 65536)
        if not lines:
            return steps, True
        steps += map(int, lines.split())
    return steps, False


def _complain(error: Exception, uri: str, complained: set[str]) -> None:
    kind = type(error).__name__
    if kind not in complained:
        complained.add(kind)
        log.warning("MLflow at %s cannot be written (%s); the run goes on and it is tried again", uri, reason(error))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, whose end is the end of this process
    os.nice(10)  # importing mlflow takes seconds of a core that the run's first step wants
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    raise SystemExit(follow(sys.argv[1], sys.stdin.fileno()))
