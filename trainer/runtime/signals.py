"""Keeps SIGUSR1 and SIGUSR2 from threads and child processes, so that only the main thread of a run handles them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Deliver SIGUSR1 and SIGUSR2 after the block. Threads and processes started in it never get them: the signal that
    asks a whole job to finish its step would kill an engine's workers, or the mirror, first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
