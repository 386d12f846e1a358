"""Programs in the sandbox: what they may do, what hostile ones cannot, and tests that decide."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.contract.cache import cache_folder
from trainer.contract.settings import ConfigError
from trainer.tasks.code import CodeTask
from trainer.tasks.sandbox import start
from trainer.tasks.sandbox.start import Limits, outcome, require_sandbox
from trainer.tasks.verifier_pool import VerifierPool
from trainer.tasks.verifiers.code import Code, program_of

try:
    require_sandbox()
except ConfigError as refusal:
    pytestmark = pytest.mark.skip(reason=str(refusal))

LIMITS = Limits(seconds=3.0)
DOUBLE = {
    "name": "double",
    "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n',
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n",
}
RIGHT = "    return x * 2\n"
WRONG = "    return x + 2\n"
SUM = {"cases": [["1 2\n", "3\n"], ["20 22\n", "42"]]}


def said(program: str, **limits: Any) -> str:
    return outcome(program, None, Limits(**{"seconds": 3.0, **limits}), b"in").output.decode()


def tried(attempt: str, **limits: Any) -> str:
    """What an attempt gives, or the name of what it raises."""
    body = "".join(f"    {line}\n" for line in attempt.splitlines())
    return said(f"try:\n{body}except BaseException as error:\n    print(type(error).__name__)", **limits).strip()


@pytest.mark.parametrize(
    ("response", "score"),
    [
        (RIGHT, 1),
        (WRONG, 0),
        (RIGHT + "\ndef other():\n    return (", 1),
        (f"Here:\n```python\n{DOUBLE['prompt']}{RIGHT}```\nDone.", 1),
        (f"```python\n{DOUBLE['prompt']}{WRONG}```\n```py\ndef double(x):\n    return x + x\n```", 1),
        ("```python\nimport os\nos._exit(0)\n```", 0),
        ("    import sys\n    sys.exit(0)\n", 0),
        ("    class Equal:\n        __eq__ = lambda self, other: True\n    return Equal()\n", 0),
        ("    import builtins\n    builtins.AssertionError = None\n    return 0\n", 0),
        ("    import os\n    os.write(1, b'4\\n[1, 1]\\n')\n    os._exit(0)\n", 0),
        ("    while True: pass\n", 0),
        ("    return (", 0),
        ("", 0),
        ("\0\ud800", 0),
    ],
)
def test_tests_of_a_function_decide(response: str, score: float) -> None:
    assert Code(seconds=1.0).score(response, DOUBLE) == score


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", 1),
        ("```python\nif __name__ == '__main__':\n    print(sum(map(int, open(0).read().split())), ' ')\n```", 1),
        ("print(3)", 0),
        ("print(3)\nraise SystemExit(1)", 0),
        ("import time\ntime.sleep(100)", 0),
    ],
)
def test_input_and_output_decide(response: str, score: float) -> None:
    assert Code(seconds=1.0).score(response, SUM) == score


def test_a_method_of_solution_is_a_function() -> None:
    data = {"name": "add", "prompt": "from typing import *\n", "cases": [[[[1, 2], 3], [4, 5]], [[[], 1], []]]}
    method = "class Solution:\n    def add(self, xs: List[int], y: int):\n        return [x + y for x in xs]\n"
    assert Code().score(f"```python\n{method}```", data) == 1
    assert Code().score(f"```python\n{method.replace('+ y', '- y')}```", data) == 0


def test_the_last_block_is_the_program() -> None:
    assert program_of("a\n```python\nx = 1\n```\n```\nx = 2\n```", "", None) == "x = 2"
    assert program_of("x = 3", "", None) == "x = 3"
    assert program_of("```py\nx = 4", "", None) == "x = 4"


def test_a_program_sees_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "sesame")
    assert "sesame" not in said("import os\nprint(dict(os.environ))")
    secret = tmp_path / "secret"
    secret.write_text("sesame")
    assert tried(f"print(open({str(secret)!r}).read())") == "FileNotFoundError"
    assert tried(f"import os\nos.symlink({str(secret)!r}, 's')\nprint(open('s').read())") == "FileNotFoundError"
    assert tried("print(open('../../../../etc/passwd').read())") == "FileNotFoundError"
    for path in ("/proc/self/environ", "/proc/1/root/etc/passwd", "/proc/self/fd/0", "/sys/kernel", "/dev/mem"):
        assert tried(f"print(open({path!r}).read())") == "FileNotFoundError", path
    assert said("import os\nprint(os.listdir('/tmp'))").strip() == "[]"
    known = {"bin", "dev", "etc", "lib", "lib64", "tmp", "usr", Path(os.path.realpath(start.sys.base_prefix)).parts[1]}
    assert set(json.loads(said("import json, os\nprint(json.dumps(os.listdir('/')))"))) <= known
    # Of the descriptors, the three standard ones are open, and the payload's, which this program has not closed. It has
    # the number it had here, where many may be open.
    opened = "import os\nfor n in range(4096):\n  try: os.fstat(n)\n  except OSError: continue\n  print(n)"
    assert said(opened).split()[:3] == ["0", "1", "2"] and len(said(opened).split()) == 4


@pytest.mark.parametrize("path", ["/usr/owned", "/usr/lib/owned", "/bin/owned", str(start.INSIDE.with_name("owned"))])
def test_nothing_is_written_outside(path: str) -> None:
    assert tried(f"open({path!r}, 'w')") in ("OSError", "PermissionError", "FileNotFoundError")
    assert not Path(path).exists()


def test_a_network_call_goes_nowhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert tried(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)") == "OSError"


def test_no_signal_leaves_the_sandbox() -> None:
    """Process 1 there is the supervisor, which nothing inside ends; there is no other to signal."""
    ends = "import os\nfor number in (os.getppid(), 1):\n    os.kill(number, 9)\nprint('alive')\nos.kill(-1, 9)"
    assert tried(ends).split() == ["alive", "ProcessLookupError"]
    assert tried(f"import os\nos.kill({os.getpid()}, 0)") == "ProcessLookupError"


def test_no_privilege_comes_back() -> None:
    call = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    assert tried(call + "print(libc.unshare(0x10000000))") == "-1"  # a user namespace, which would give all of them
    assert tried(call + "print(libc.mount(b't', b'/tmp', b'tmpfs', 0, None))") == "-1"
    assert tried(call + "print(libc.umount2(b'/usr', 2))") == "-1"
    assert tried(call + "print(libc.ptrace(16, 1, 0, 0))") == "-1"
    assert tried(call + "print(libc.shmget(0, 1 << 20, 0o1700))") == "-1"
    assert tried("import os\nos.chroot('/tmp')") == "PermissionError"


def test_a_fork_bomb_is_small_and_short() -> None:
    started = time.monotonic()
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert outcome(bomb, None, Limits(seconds=1.0), b"").code != 0
    assert time.monotonic() - started < 10
    count = (
        "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(9)\n    n += 1\n"
        "except OSError: print(n)"
    )
    assert int(said(count)) < LIMITS.processes


def test_memory_files_and_output_are_bounded() -> None:
    assert tried("print(len(bytearray(1 << 30)))") == "MemoryError"
    assert tried("with open('a', 'wb') as file:\n    file.write(bytes(32 << 20))") in ("OSError", "")
    many = "import itertools\nfor n in itertools.count():\n    open(str(n), 'wb').write(bytes(1 << 20))"
    assert tried(many) == "OSError"
    assert tried("import os\nx = [os.open('/dev/null', 0) for _ in range(99)]") == "OSError"
    ended = outcome("while True: print('x' * 10000)", None, LIMITS, b"")
    assert ended.code is None and len(ended.output) == LIMITS.output
    assert outcome("import time\ntime.sleep(99)", None, Limits(seconds=0.5), b"").code in (None, 124)


def test_nobody_is_left_behind() -> None:
    """A child in a session of its own that ignores signals goes with the sandbox."""
    mark = f"{os.getpid()}{time.monotonic_ns()}"
    leave = (
        "import os, sys, time\nif os.fork() == 0:\n  os.setsid()\n  os.close(1)\n"
        f"  os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60) # {mark}'])\n"
    )
    outcome(leave, None, LIMITS, b"")
    time.sleep(0.2)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if f"# {mark}'".encode() in line or line.endswith(f"# {mark}\0".encode())]


def test_the_run_goes_on_after_hostile_responses() -> None:
    """Through the pool, as a run does it; a right answer among them is still right."""
    hostile = [
        "```python\nimport os\nwhile True: os.fork()\n```",
        "```python\nx = bytearray(1 << 40)\n```",
        "```python\nimport os\nos.kill(-1, 9)\n```",
        "```python\nwhile True: print('x' * 100000)\n```",
        "    import os\n    os.killpg(0, 9)\n",
    ]
    responses = [text for each in hostile for text in (each, RIGHT)]
    pool = VerifierPool({"code": {"_target_": "trainer.tasks.verifiers.code.Code", "seconds": 1.0}}, 20.0, 2)
    try:
        scores = [score["code"] for score in pool.scores([(text, DOUBLE) for text in responses])]
    finally:
        pool.close()
    assert scores == [0.0, 1.0] * len(hostile)
    assert threading.active_count() < 50


def test_where_nothing_is_isolated_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "inside.py"
    broken.write_text(
        start.INSIDE.read_text().replace(
            "def _unshare(root: bool) -> None:",
            "def _unshare(root):\n    raise OSError(1, 'unshare: Operation not permitted')\ndef _other(root):",
        )
    )
    monkeypatch.setattr(start, "INSIDE", broken)
    with pytest.raises(ConfigError, match=r"code is not judged here, because it cannot be isolated \(.*unshare"):
        require_sandbox.__wrapped__()
    assert Code(seconds=1.0).score(RIGHT, DOUBLE) == 0


def humaneval(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROW = {"prompt": DOUBLE["prompt"], "test": DOUBLE["test"], "entry_point": "double", "canonical_solution": RIGHT}


def test_the_task_trains_and_evaluates(tmp_path: Path) -> None:
    task = CodeTask(path=humaneval(tmp_path / "a.jsonl", [ROW] * 5))
    train, heldout = task.train_prompts(), task.suites()["heldout"]
    assert [prompt.id for prompt in train] == ["train-1", "train-2", "train-3"]
    assert [prompt.id for prompt in heldout] == ["heldout-0", "heldout-4"]
    expert = task.expert(train[0])
    assert expert is not None
    right, wrong = task.verify_all([(train[0], expert), (train[0], WRONG)])
    assert right.reward == 1.0 and right.solution == right.answer and not right.failed
    assert wrong.reward == 0.0 and wrong.solution is None and wrong.answer
    assert len(task.notes()) == 1


def test_livecodebench_rows(tmp_path: Path) -> None:
    stdin = {"question_content": "Add.", "starter_code": "", "metadata": "{}"}
    stdin["public_test_cases"] = json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}])
    function = {"question_content": "Add.", "starter_code": "class Solution:\n    def f(self, a: int, b: int) -> int:"}
    function["metadata"] = '{"func_name": "f"}'
    function["public_test_cases"] = json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}])
    task = CodeTask(path=humaneval(tmp_path / "a.jsonl", [stdin, function]), layout="livecodebench", heldout_every=1)
    first, second = task.suites()["heldout"]
    assert task.verify(first, "print(sum(map(int, input().split())))").reward == 1.0
    assert task.verify(second, f"```python\n{function['starter_code']}\n        return a + b\n```").reward == 1.0
    assert task.verify(second, f"```python\n{function['starter_code']}\n        return a - b\n```").reward == 0.0
    with pytest.raises(ConfigError, match="leaves no prompt to train on"):
        task.train_prompts()


@pytest.mark.parametrize(
    ("rows", "layout", "sentence"),
    [
        ([], "humaneval", "is empty"),
        ([{"prompt": "p", "test": "t"}], "humaneval", r"no text in column 'entry_point' \(it has prompt, test\)"),
        ([ROW], "livecodebench", "no text in column 'question_content'"),
        (
            [{"question_content": "q", "starter_code": "", "public_test_cases": "[]"}],
            "livecodebench",
            "there is no test",
        ),
    ],
)
def test_bad_files(rows: list[dict[str, Any]], layout: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        CodeTask(path=humaneval(tmp_path / "a.jsonl", rows), layout=layout).suites()
    with pytest.raises(ConfigError, match=r"task\.path is not set"):
        CodeTask().suites()


@pytest.mark.slow
def test_canonical_solutions_of_humaneval() -> None:
    path = cache_folder() / "data" / "humaneval" / "test.jsonl"
    if not path.is_file():
        pytest.skip("HumanEval is not there: run `make real-data`")
    task = CodeTask(path=str(path), heldout_every=1)
    prompts = task.suites()["heldout"]
    pairs = [(prompt, str(task.expert(prompt))) for prompt in prompts]
    assert [verdict.reward for verdict in task.verify_all(pairs)] == [1.0] * 164
    stubs = task.verify_all([(prompt, "    return None\n") for prompt in prompts])
    assert sum(verdict.reward for verdict in stubs) == 0
