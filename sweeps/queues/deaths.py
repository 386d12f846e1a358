"""What became of a run whose trainer died without a word, by the signal that ended it.

A process that was ended from outside loses its run nothing but time; one that crashed would crash again.
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
"""Deaths that the next start would most likely repeat."""

KILLED = {
    signal.SIGKILL: "killed by SIGKILL (out of memory?)",
    signal.SIGXCPU: "killed by SIGXCPU: its limit of processor time was reached",
    signal.SIGXFSZ: "killed by SIGXFSZ: its limit of file size was reached",
}
"""Deaths that came from outside; any other signal is named as it is."""


def killed_rank(text: str) -> int | None:
    """The signal that ended a rank, from the standard error of what had started it; None if there was none."""
    found = RANK.findall(text)
    return int(found[-1]) if found else None


def end_by_signal(number: int) -> tuple[str, str]:
    """State and message of a run whose trainer was ended by this signal: LOST goes on with the same command."""
    try:
        name = signal.Signals(number)
    except ValueError:
        return "LOST", f"killed by signal {number}"
    if name in CRASHES:
        return "FAILED", f"the trainer {CRASHES[name]}"
    return "LOST", KILLED.get(name, f"killed by {name.name}")


def last_words(text: str) -> str:
    """The last line of standard error that says something: bars that show progress do not."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return next((line for line in reversed(lines) if not re.search(r"\d+%\||\d+% (Completed|done)", line)), "")
