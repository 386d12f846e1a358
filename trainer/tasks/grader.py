"""A process beside the run that compares answers, because sympy may take any time and any memory over a few
characters.

The process runs :func:`main`. It starts with the first answer that takes algebra. Limits are in processor time, so
that a busy machine does not change a reward. The process may read files (imports) and nothing else: no writing, no
network, no further process, no code from text.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.runtime.signals import signals_held_back
from trainer.tasks.compare import same

CPU_SECONDS = 2.0
"""Per answer; after twice that the kernel ends the process, even in an operation that Python does not interrupt."""
WALL_SECONDS = 300.0
"""Per answer, for a process that is stopped or starved: a run must not wait for ever."""
MEMORY_BYTES = 4 << 30

_ROOT = Path(__file__).resolve().parents[2]
_FORBIDDEN = (
    *("subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.kill", "os.chmod"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _AlgebraNeeded(Exception):
    """Two answers that neither text nor exact numbers decide."""


def _needed(gold: str, answer: str) -> bool | None:
    raise _AlgebraNeeded


@functools.lru_cache(maxsize=65536)  # the responses to one prompt share few answers
def judge(gold: str, answer: str) -> bool | None:
    """Whether ``answer`` equals ``gold``, both as :func:`trainer.tasks.answers.spelled`; None if they cannot be
    compared: one is no mathematics, too large, or takes longer than the limits. Never raises on any text."""
    try:
        return same(gold, answer, _needed)
    except _AlgebraNeeded:
        return _PROCESS.ask(gold, answer)


class _Process:
    """The process, started when it is first needed and again after it ended."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, gold: str, answer: str) -> bool | None:
        """One comparison. A process that ended for another reason than its limits is asked once more."""
        for _ in range(2):
            child = self._started()
            try:
                line = self._exchange(child, json.dumps([gold, answer]).encode() + b"\n")
            except BaseException:  # whoever interrupts must not leave an answer for the next question
                self.close()
                raise
            if line:
                result: bool | None = json.loads(line)
                return result
            self.close()
            if child.returncode == -signal.SIGPROF:
                return None
        return None

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes) -> bytes:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(request)
            child.stdin.flush()
        except BrokenPipeError:
            return b""
        ready, _, _ = select.select([child.stdout], [], [], WALL_SECONDS)
        return child.stdout.readline() if ready else b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._owner != os.getpid():  # a fork must not share the pipe
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            with signals_held_back():
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "trainer.tasks.grader"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": path},
                )
            self._owner = os.getpid()
        return self._child

    def close(self) -> None:
        """End the process, if there is one and it is ours; it goes by itself once its input has ended."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(5.0)
        except subprocess.TimeoutExpired:  # in the middle of an answer that nobody waits for
            child.kill()
            child.wait()
        child.stdout.close()


_PROCESS = _Process()
atexit.register(_PROCESS.close)


class OutOfTime(BaseException):
    """The limit of one answer; no ``except Exception`` on the way may hold it up."""


def main() -> None:
    """Read pairs of answers, a JSON list a line; write true, false or null, until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # those are for the run, which closes the pipe when it ends
    from trainer.tasks import algebra

    for pair in WARM_UP:  # imports and the parser's tables; refused and not counted from here on
        same(*pair, algebra.equal)
    signal.signal(signal.SIGVTALRM, _out_of_time)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(refuse)
    for line in sys.stdin.buffer:
        gold, answer = json.loads(line)
        sys.stdout.write(json.dumps(_answer(gold, answer, algebra)) + "\n")
        sys.stdout.flush()
    os._exit(0)  # nothing to tidy up, and sympy takes a while over it


WARM_UP = (
    ("2^{n+1}", "2^n+1"),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"),
    ("\\sin(x)^{2}+\\log_{2}(8)", "4-\\cos^2(x)"),
    ("2x+y=3", "y=3-2x"),
    ("(-\\infty,2)\\cup[3,\\infty)", "x<2"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\x\\end{pmatrix}"),
    ("1\\le x<2", "[1,2)"),
    ("\\int_0^1 x dx+\\sum_{k=1}^{3} k", "\\frac{13}{2}"),
    ("\\{1,x\\}", "\\binom{5}{2}+3!"),
)


def _answer(gold: str, answer: str, algebra: Any) -> bool | None:
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, 2 * CPU_SECONDS)  # nobody handles SIGPROF: it ends the process
    try:
        return same(gold, answer, algebra.equal)
    except (Exception, OutOfTime):
        return None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _out_of_time(number: int, frame: object) -> None:
    raise OutOfTime


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: raise on anything that only a response gone wrong could want."""
    if event.startswith(_FORBIDDEN):
        raise PermissionError(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        raise PermissionError(f"{event} {arguments[0]} for writing")
    if event == "compile" and str(arguments[1]) == "<string>":
        raise PermissionError("text is not compiled")
    if event == "exec" and getattr(arguments[0], "co_filename", "") == "<string>":
        raise PermissionError("text is not run")


if __name__ == "__main__":
    main()
