"""A process that runs the trainer in forked children and kills, tears or signals them where a test says.

Started by ``conftest.py`` of this folder, once: torch is imported once, and every run costs a fork. One JSON line in,
``{"folders", "log", "faults": [{"at": "module:name", "call": n, "do": what}], "kill_after_s"}``, one line out: the exit
code of ``python -m trainer``, negative for a signal. It must not start a thread or compute anything before it forks.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

PRELOADED = (
    "accelerate",
    "torch",
    "trainer.__main__",
    "trainer.setup.checks",
    "trainer.engine.transformers",
    "trainer.loop",
    "trainer.tracking.mirror",
    "transformers.models.qwen3.modeling_qwen3",
)


def arm(at: str, call: int, do: str) -> None:
    """Replace the function ``module:name`` (``name`` may be ``Class.method``) by one that fails at its n-th call.

    ``kill`` and ``raise`` come before the call, ``kill_after`` behind it, ``tear`` writes half of what ``os.write`` was
    given and kills, ``full`` says from then on that the disk is; ``term``, ``usr1``, ``usr2`` and ``int`` send the
    signal and go on; ``stop``, for methods of a run folder, puts the STOP file there and goes on; ``kill_copier``, for
    methods of a mirror, kills its process and goes on, ``kill_both`` kills both.
    """
    module, _, name = at.partition(":")
    *path, last = name.split(".")
    holder = functools.reduce(getattr, path, importlib.import_module(module))
    original = getattr(holder, last)
    calls = 0

    @functools.wraps(original)
    def faulty(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call and not (do == "full" and calls > call):
            return original(*arguments, **keywords)
        return fail(do, functools.partial(original, *arguments, **keywords))

    setattr(holder, last, faulty)


def fail(do: str, original: Callable[[], Any]) -> Any:
    """Do what a fault does to the call ``original``."""
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "raise":
        raise RuntimeError("injected")
    if do == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if do == "tear":
        descriptor, data = original.args  # type: ignore[attr-defined]
        original.func(descriptor, data[: len(data) // 2])  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    if do in ("term", "usr1", "usr2", "int"):
        os.kill(os.getpid(), getattr(signal, f"SIG{do.upper()}"))
    if do == "stop":
        original.args[0].stop.touch()  # type: ignore[attr-defined]
    if do in ("kill_copier", "kill_both"):
        original.args[0]._process.kill()  # type: ignore[attr-defined]
    result = original()
    if do in ("kill_after", "kill_both"):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def child(job: dict[str, Any]) -> int:
    """Run the trainer as ``python -m trainer FOLDERS`` would, output in ``job["log"]``."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from trainer.__main__ import main

    for fault in job["faults"]:
        arm(**fault)
    try:
        return main(job["folders"])
    except SystemExit as leave:
        return int(leave.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def kill(pid: int, seconds: float) -> None:
    """Kill -9 process ``pid`` after ``seconds``, unless it has ended by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)


def serve() -> None:
    """Answer one job after another."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = child(job)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if job["kill_after_s"] is not None:
            kill(pid, job["kill_after_s"])
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
