"""Starting programs in the sandbox of :mod:`trainer.tasks.sandbox.inside`, and refusing where there is none."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.contract.settings import ConfigError

INSIDE = Path(__file__).with_name("inside.py")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program. All of its processes together hold at most ``processes * memory`` bytes, and ``files`` more."""

    seconds: float = 5.0
    """By the clock, for everything; and of CPU, for each process."""
    memory: int = 512 * MIB
    """Address space of a process."""
    processes: int = 4
    """Processes and threads."""
    files: int = 16 * MIB
    """All files together, and each."""
    output: int = MIB
    """Bytes on standard output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    code: int | None
    """Exit code; None for one that was killed for its time or output."""
    output: bytes


@contextmanager
def started(code: str, payload: Any, limits: Limits, *, stdin: Any, stdout: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A sandbox that runs the Python ``code``, killed with all its processes at the end.

    ``payload`` is JSON that the code reads from the descriptor in ``sys.argv[1]``. The environment is empty.
    """
    memory = os.memfd_create("payload")
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(json.dumps(payload).encode())
        os.lseek(memory, 0, os.SEEK_SET)
        child = subprocess.Popen(
            [_python(), "-I", "-S", str(INSIDE), _arguments(limits), code, str(memory)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE if stdin == subprocess.DEVNULL else subprocess.DEVNULL,
            env={},
            pass_fds=(memory,),
            start_new_session=True,
        )
    finally:
        os.close(memory)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def outcome(code: str, payload: Any, limits: Limits, stdin: bytes) -> Outcome:
    """Run to the end, with ``stdin`` as input."""
    deadline = time.monotonic() + limits.seconds + 1
    with _file(stdin) as input_file, started(code, payload, limits, stdin=input_file, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        output = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or len(output) > limits.output or not select.select([child.stdout], [], [], left)[0]:
                return Outcome(code=None, output=output[: limits.output])
            part = os.read(child.stdout.fileno(), 65536)
            if not part:
                break
            output += part
        return Outcome(code=waited(child, deadline), output=output)


def waited(child: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit code, or None if there is none before ``deadline``."""
    try:
        return child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


@functools.cache
def require_sandbox() -> None:
    """Raise :class:`ConfigError` in one sentence unless programs can be isolated on this machine."""
    if sys.platform != "linux":
        raise ConfigError(f"code is judged only where it can be isolated, by Linux namespaces; this is {sys.platform}")
    with started("", None, Limits(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        assert child.stderr is not None
        reason = child.stderr.read(500).decode(errors="replace").strip()
        code = child.wait()
    if code != 0:
        raise ConfigError(
            f"code is not judged here, because it cannot be isolated ({reason or f'exit code {code}'}): allow user "
            "namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0; a container: "
            "an unconfined seccomp profile), or take another task"
        )


@contextmanager
def _file(content: bytes) -> Iterator[int]:
    """A descriptor to read ``content`` from, which cannot block whoever writes it."""
    descriptor = os.memfd_create("stdin")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _arguments(limits: Limits) -> str:
    home = os.path.realpath(sys.base_prefix)
    interpreter = [] if home == "/usr" or home.startswith("/usr/") else [home]
    return json.dumps(
        {
            "python": _python(),
            "roots": [path for path in (*SYSTEM, *interpreter) if os.path.lexists(path)],
            "seconds": limits.seconds,
            "memory": limits.memory,
            "processes": limits.processes,
            "files": limits.files,
        }
    )
