"""State and message of a run whose trainer was killed by a signal before it could write its status.

A trainer that was killed from outside can be resumed (LOST); one that crashed would crash again (FAILED).
"""

from __future__ import annotations

import re
import signal

RANK = re.compile(r"Signal (\d+) \(SIG\w+\) received by PID")
"""What ``torchrun`` and ``accelerate launch`` write about a rank that was killed; they leave with status 1."""

CRASHES = {
    signal.SIGSEGV: "crashed in native code with SIGSEGV: see attempts/, and whether torch and vLLM fit this machine",
    signal.SIGBUS: "crashed with SIGBUS: a file that was mapped into memory was cut, or /dev/shm is full",
    signal.SIGABRT: "gave up in native code with SIGABRT: the reason is at the end of its standard error in attempts/",
    signal.SIGILL: "crashed with SIGILL: a library was built for another processor",
    signal.SIGFPE: "crashed in native code with SIGFPE: see attempts/",
}
"""Signals of a crash that would most likely repeat at the next start, with the rest of the message."""

KILLED = {
    signal.SIGKILL: "killed by SIGKILL (out of memory?)",
    signal.SIGXCPU: "killed by SIGXCPU: its limit of processor time was reached",
    signal.SIGXFSZ: "killed by SIGXFSZ: its limit of file size was reached",
}
"""Signals from outside, with a message; any other signal is named as it is."""


def signal_of_rank(text: str) -> int | None:
    """The signal that killed a rank, from the standard error of ``torchrun`` or ``accelerate``; None without any."""
    numbers = RANK.findall(text)
    return int(numbers[-1]) if numbers else None


def state_after_signal(number: int) -> tuple[str, str]:
    """State and message of a run whose trainer was killed by this signal; LOST is resumed by the same command."""
    try:
        name = signal.Signals(number)
    except ValueError:
        return "LOST", f"killed by signal {number}"
    if name in CRASHES:
        return "FAILED", f"the trainer {CRASHES[name]}"
    return "LOST", KILLED.get(name, f"killed by {name.name}")


def last_error_line(text: str) -> str:
    """The last line of standard error that is no progress bar."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return next((line for line in reversed(lines) if not re.search(r"\d+%\||\d+% (Completed|done)", line)), "")
