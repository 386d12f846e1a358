"""Each part in a process of its own, and what of it there is to record. It needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, environment


def run_part(name: str, seconds: float, request: dict[str, Any]) -> dict[str, Any]:
    """A part in a process of its own; what it had found stays where it fails or runs out of time."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", json.dumps(request)]
    return {"name": name} | finished(command, seconds, last_line)


def run_tests(seconds: float) -> dict[str, Any]:
    """``pytest -m gpu``, with the outcome of every test."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        command += [f"--basetemp={scratch}/pytest", f"--junitxml={report}"]
        return {"name": "tests"} | finished(command, seconds, lambda output: outcomes(report, output))


def finished(command: list[str], seconds: float, read: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What ``read`` makes of a command's output, with its wall time and, where it failed, the last it said."""
    start, error = time.perf_counter(), ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as wrong:
        try:
            ran = subprocess.run(
                command, cwd=ROOT, env=environment(), stdout=out, stderr=wrong, timeout=max(seconds, 1), check=False
            )
            failed = ran.returncode != 0
        except subprocess.TimeoutExpired:
            failed, error = True, f"ended after its {seconds:.0f} s"
        output, said = (read_all(file) for file in (out, wrong))
    found = read(output)
    if failed and not error:
        error = ((said.strip() or output.strip()).splitlines() or ["no word"])[-1][-400:]
    return found | {"wall_s": time.perf_counter() - start, "error": error, "tail": said[-3000:] if failed else ""}


def read_all(file: Any) -> str:
    """A file from its beginning."""
    file.seek(0)
    return str(file.read())


def last_line(output: str) -> dict[str, Any]:
    """The last line that is a JSON object; empty without any."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def outcomes(report: Path, output: str) -> dict[str, Any]:
    """passed, failed or skipped for each test, and what failed ones say."""
    if not report.is_file():
        return {"output": output[-3000:]}
    tests = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag: child for child in case}
        bad = next((kinds[kind] for kind in ("failure", "error", "skipped") if kind in kinds), None)
        own = {value.attrib["name"]: value.attrib["value"] for value in case.iter("property")}
        tests[case.attrib["name"]] = {
            "outcome": "passed" if bad is None else bad.tag,
            "seconds": float(case.attrib.get("time", 0)),
            **({"message": (bad.attrib.get("message") or "")[:600]} if bad is not None else {}),
            **({"text": (bad.text or "")[-2500:]} if bad is not None and bad.tag != "skipped" else {}),
            **own,
        }
    return {"tests": tests}
