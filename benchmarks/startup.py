"""Process start to first training step, cold and warm, by part; and what one more run in the same process costs.

    python -m benchmarks.startup [--runs 4] [--no-cold]

One process trains several runs of two steps each, with MLflow, as a job of a sweep does. Cold: the files of the
environment are dropped from the page cache first, as far as other processes let go of them. An additional run costs
the time from the end of the last step before it to the start of its own first step.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import child, save, spread

PARTS = {
    "check and build the configuration": "trainer.supervise:_checked",
    "describe the run (git, packages)": "trainer.storage.provenance:describe_run",
    "open the session": "trainer.loop:open_session",
    "of it: tokenizer": "trainer.session.session:load_tokenizer",
    "of it: model": "trainer.session.policies:load_model",
    "of it: engine": "trainer.engine.base:EnginePool.get",
    "of it: checkpoint and weight sync": "trainer.session.session:Session.resume",
    "start the MLflow mirror": "trainer.tracking.mirror:Mirror.__init__",
    "wait for the MLflow mirror": "trainer.tracking.mirror:Mirror.close",
}
"""Names and functions that are timed; those of a session lie within it."""
IMPORTS = (
    "torch",
    "transformers",
    "trainer.setup.build",
    "trainer.setup.checks",
    "trainer.loop",
    "trainer.tracking.mirror",
)
OVERRIDES = ("steps=2", "evaluation=none", "checkpoint.every=2")


def timed(function: Callable[..., Any], name: str, spans: list[dict[str, Any]]) -> Callable[..., Any]:
    """``function``, noting when each call began and ended."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **more: Any) -> Any:
        start = time.time()
        try:
            return function(*arguments, **more)
        finally:
            spans.append({"part": name, "start": start, "end": time.time()})

    return wrapper


def job(request: dict[str, Any]) -> dict[str, Any]:
    """What ``python -m trainer`` does on the folders, with a stopwatch on its parts."""
    spans: list[dict[str, Any]] = []
    began = time.time()
    for module in IMPORTS:
        timed(importlib.import_module, f"import {module}", spans)(module)
    for name, place in PARTS.items():
        module, _, path = place.partition(":")
        *outer, attribute = path.split(".")
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        setattr(owner, attribute, timed(getattr(owner, attribute), name, spans))
    stdout, sys.stdout = sys.stdout, sys.stderr
    code = importlib.import_module("trainer.__main__").main(request["folders"])
    sys.stdout = stdout
    if code:
        raise SystemExit(f"the trainer left with exit code {code}")
    return {"began": began, "spans": spans}


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """One job: seconds to the first step by part, and of each further run."""
    store = f"tracking.uri=sqlite:///{folder}/mlflow.db"
    folders = [ours.make_run(folder / f"run{seed}", *OVERRIDES, store, f"seed={seed}") for seed in range(runs)]
    start = time.time()
    found = child("benchmarks.startup", {"folders": list(map(str, folders))})
    first_steps, last_ends = [], []
    for run in folders:
        lines = ours.steps(run)
        first_steps.append((lines[0]["time"], lines[0]["metrics"]))
        last_ends.append(lines[-1]["time"])
    begins = [end - metrics["time/step_s"] for end, metrics in first_steps]
    parts = {"interpreter": found["began"] - start}
    for span in found["spans"]:
        if span["start"] < first_steps[0][0]:
            parts[span["part"]] = parts.get(span["part"], 0.0) + span["end"] - span["start"]
    further = [begins[number] - last_ends[number - 1] for number in range(1, runs)]
    more: dict[str, list[float]] = {}
    for span in found["spans"]:
        if span["start"] >= last_ends[0] and span["end"] <= begins[-1] + 0.01:
            more.setdefault(span["part"], []).append(span["end"] - span["start"])
    slower = [
        metrics["time/step_s"] - ours.steps(run)[1]["metrics"]["time/step_s"]
        for run, (_, metrics) in zip(folders, first_steps, strict=True)
    ]
    return {
        "to_first_step": begins[0] - start,
        "parts": parts,
        "first_step": {key: value for key, value in first_steps[0][1].items() if key.startswith("time/")},
        "first_step_slower_by": slower,
        "additional": spread(further),
        "additional_parts": {name: sum(values) / (runs - 1) for name, values in more.items()},
    }


def evict() -> None:
    """Drop this environment's files from the page cache."""
    for folder in {Path(sys.prefix), Path(importlib.util.find_spec("torch").origin).parents[1]}:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--no-cold", action="store_true", help="leave the page cache alone")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(job(json.load(sys.stdin))))
        return
    data = {}
    with tempfile.TemporaryDirectory() as scratch:
        if not options.no_cold:
            evict()
            data["cold"] = measure(Path(scratch) / "cold", options.runs)
        data["warm"] = measure(Path(scratch) / "warm", options.runs)
    for name, found in data.items():
        print(name, json.dumps(found, indent=1))
    save("startup", data)


if __name__ == "__main__":
    main()
