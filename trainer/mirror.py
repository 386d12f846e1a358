"""The thread that copies a run folder to MLflow while the run goes on.

Started by the loop. The folder's files are its queue, so nothing is lost with it. Must never raise into, or wait in, a
training step; must not import mlflow itself.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from trainer.record import RunFolder
from trainer.tracking import Copy

LONGEST_PAUSE_S = 60.0
"""Between two tries while MLflow cannot be reached."""

log = logging.getLogger(__name__)


class Mirror:
    """Copies from its creation, which has to follow :meth:`RunFolder.truncate`, to :meth:`close`.

    Without ``tracking.uri`` it does nothing. Failures are logged, once per kind, and tried again.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        tracking = config.get("tracking") or {}
        self.uri: str | None = tracking.get("uri")
        self._folder = folder
        self._copy = Copy(folder, config, self.uri) if self.uri else None
        self._period = float(tracking.get("flush_every_s") or 5.0)
        self._durable = -1
        self._deadline = math.inf
        self._closing = threading.Event()
        self._complained: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        if self._copy:
            self._thread.start()

    def mark_durable(self, step: int) -> None:
        """Steps up to ``step`` can no longer be computed again (a checkpoint holds them), so they may be copied."""
        self._durable = step

    def close(self, timeout: float = 60.0) -> bool:
        """Copy the rest, end the MLflow run as ``status.json`` says (write that first); True if all of it got there."""
        if self._copy is None:
            return True
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        self._thread.join(timeout)
        if not self._copy.complete:
            path = self._folder.path
            log.warning(
                "MLflow at %s lacks a part of this run; `python -m trainer --sync %s` fills it from the files",
                self.uri,
                path,
            )
        return self._copy.complete

    def _work(self) -> None:
        assert self._copy is not None
        pause = self._period
        while True:
            closing = self._closing.is_set()  # read first: what was written before close() is then copied below
            try:
                if closing:
                    self._copy.finish(self._durable)
                    return
                self._copy.advance(self._durable)
                pause = self._period
            except Exception as error:  # the boundary: the record is on disk, so a failed copy is only late
                self._complain(error)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            if time.monotonic() > self._deadline:
                return
            if closing:
                time.sleep(min(pause, 0.5))
            else:
                self._closing.wait(pause)

    def _complain(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._complained:
            self._complained.add(kind)
            what = str(error).strip().partition("\n")[0][:300]
            log.warning(
                "MLflow at %s cannot be written (%s: %s); the run goes on and it is tried again", self.uri, kind, what
            )
