"""The process that compares expressions: limits in processor time, no running of text, and it is never missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from trainer.contract.paths import ROOT
from trainer.tasks import grader
from trainer.tasks.grader import judge


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    judge.cache_clear()
    yield
    judge.cache_clear()


def child() -> subprocess.Popen[bytes]:
    assert judge("x+1", "1+x") is True
    found = grader._PROCESS._child
    assert found is not None
    return found


def test_numbers_lists_and_words_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grader._PROCESS, "ask", lambda gold, answer: pytest.fail("asked"))
    assert judge("1/2", "0.5") and judge("(0,1)", "(0,1.0)") and judge("7", "x=7")
    assert judge("even", "odd") is False and judge("31/4", "3 1/4") is False and judge("even", "7") is None


def test_a_process_that_was_killed_is_started_again_and_asked_again() -> None:
    first = child()
    first.kill()
    first.wait()
    assert judge("x+2", "2+x") is True
    assert child().pid != first.pid


def test_signals_for_the_run_do_not_end_it() -> None:
    first = child()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        first.send_signal(number)
    time.sleep(0.2)
    assert judge("x+3", "3+x") is True and child().pid == first.pid


SERVE = """
import sys
from trainer.tasks import algebra, grader
grader.CPU_SECONDS, grader.WARM_UP = 0.2, (("x+1", "1+x"),)
def slow(gold, answer):
    if gold == "python":
        while True:
            pass
    return max(range(10**10)) > 0  # a loop in C: no Python handler gets a turn
right = algebra.equal
algebra.equal = lambda gold, answer: right(gold, answer) if gold[0] == "x" else slow(gold, answer)
grader.main()
"""


def test_limits_hold_in_python_and_outside_it() -> None:
    started = time.process_time()
    served = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert served.stdin is not None and served.stdout is not None
    with served:
        for question, answer in ((["python", "1"], "null"), (["x+1", "1+x"], "true"), (["C", "1"], "")):
            served.stdin.write(json.dumps(question) + "\n")
            served.stdin.flush()
            assert served.stdout.readline().strip() == answer
    assert served.returncode == -signal.SIGPROF
    assert time.process_time() - started < 5


FORBIDDEN = """
import os, subprocess, sys
from trainer.tasks import algebra, grader
algebra.equal("x+1", "1+x")
sys.addaudithook(grader.refuse)
import sympy
attempts = [
    lambda: os.system("touch owned"),
    lambda: subprocess.run(["touch", "owned"]),
    lambda: open("owned", "w"),
    lambda: os.open("owned", os.O_CREAT),
    lambda: os.remove("README.md"),
    lambda: sympy.sympify("__import__('os').getpid()"),
    lambda: eval("1 + 1"),
    lambda: exec("x = 1"),
    lambda: __import__("socket").socket(),
]
allowed = []
for number, attempt in enumerate(attempts):
    try:
        attempt()
    except Exception as error:
        continue
    allowed.append(number)
assert algebra.equal("x+2", "2+x") is True
print(allowed)
"""


def test_the_process_cannot_write_start_connect_or_run_text() -> None:
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
    assert not (ROOT / "owned").exists()


def test_it_ends_with_the_run() -> None:
    code = (
        "from trainer.tasks import grader; grader.judge('x+1', '1+x'); print(grader._PROCESS._child.pid, flush=True); "
    )
    code += "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 60
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")


WARM = """
import sys
from trainer.tasks import algebra, grader
from trainer.tasks.compare import same
for pair in grader.WARM_UP:
    same(*pair, algebra.equal)
before = set(sys.modules)
assert algebra.equal("x^2+2x+1", "(x+1)^2") and algebra.equal("2\\\\sqrt{3}", "\\\\sqrt{12}")
assert algebra.equal("\\\\sin(2x)", "2\\\\sin(x)\\\\cos(x)") and algebra.equal("x^2=4", "2x^2=8")
assert algebra.equal("\\\\int_0^1 x dx", "\\\\frac{1}{2}") is not False
print(sorted(name for name in set(sys.modules) - before))
"""


def test_everything_is_imported_before_answers_come() -> None:
    """An import would count against the limit of the first answer that needs it."""
    done = subprocess.run([sys.executable, "-c", WARM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
