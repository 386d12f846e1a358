"""One trainer per run: who has it, who acts for whoever has it, and that its end frees it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import write_run

from trainer.__main__ import main
from trainer.contract.liveness import Taken, handed_on, has_heartbeat, holder, holding, is_locked, lock
from trainer.contract.paths import ROOT

HAVE = """
import sys; from pathlib import Path; from trainer.contract.liveness import Taken, holding
try:
    with holding(Path(sys.argv[1])): print("have it", flush=True); sys.stdin.read()
except Taken as taken:
    print(taken)
"""


def another(run_dir: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HAVE, str(run_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, text=True, **pipes)  # type: ignore[call-overload]


def test_the_second_says_who_has_the_run(tmp_path: Path) -> None:
    first = another(tmp_path)
    assert first.stdout is not None and first.stdout.readline() == "have it\n"
    with pytest.raises(Taken, match=rf"process {first.pid} on {socket.gethostname()} since 20\d\d-"), holding(tmp_path):
        pass
    assert has_heartbeat(tmp_path), "whoever has a run shows signs of life"
    first.kill()
    first.wait()
    assert not is_locked(tmp_path)
    with holding(tmp_path):
        found = holder(tmp_path)
        assert found is not None and found.pid == os.getpid()
        assert another(tmp_path).communicate("")[0].startswith(f"{tmp_path} is being trained by process {os.getpid()}")
    assert not is_locked(tmp_path)


def test_what_its_holder_starts_acts_for_it_and_nobody_else_does(tmp_path: Path) -> None:
    held = lock(tmp_path)
    assert held is not None
    assert another(tmp_path, **handed_on()).communicate("")[0] == "have it\n"
    assert "is being trained" in another(tmp_path).communicate("")[0]
    held.close()
    other = another(tmp_path)
    assert other.stdout is not None and other.stdout.readline() == "have it\n"
    assert "is being trained" in another(tmp_path, **handed_on()).communicate("")[0], "an old token opens nothing"
    other.communicate("")


def test_a_second_trainer_leaves_with_a_sentence_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path)
    first = another(tmp_path)
    assert first.stdout is not None and first.stdout.readline() == "have it\n"
    while not has_heartbeat(tmp_path):
        time.sleep(0.01)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([str(tmp_path)]) == 30
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"process {first.pid} on" in said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before and folder.read_status() is None
    first.communicate("")
