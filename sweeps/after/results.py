"""Prints the results of a finished sweep: table of levels, path of the report, command that opens MLflow.

Table and report are made by ``python -m dashboards``, in a process of its own, from MLflow.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.grid.sweep import Sweep
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError


def show_results(sweep: Sweep, uri: str) -> None:
    """Print the table of levels, write the report and say where everything is."""
    report = sweep.folder / "report.html"
    if sweep.claims:
        table, error = _dashboards("claims", sweep.name, "--uri", uri, "--output", str(report)).communicate()
        print(
            f"\n{table.rpartition('page: ')[0].rstrip()}\n\nreport     {report}"
            if table
            else f"\nno table: {_last(error)}"
        )
        return
    writing = _dashboards("report", sweep.name, "--uri", uri, "--output", str(report), "--log")
    table, error = _dashboards("table", sweep.name, "--uri", uri).communicate()
    print(f"\n{table.rstrip()}\n" if table else f"\nno table: {_last(error)}")
    _, error = writing.communicate()
    print(f"report     {report}" if writing.returncode == 0 else f"no report: {_last(error)}")


def show_search(sweep: Sweep, uri: str | None) -> None:
    """Write the report of a search and say where it is."""
    where = ["--uri", uri, "--log"] if uri is not None else []
    _, error = _dashboards("search", str(sweep.folder), *where).communicate()
    report = sweep.folder / "report" / "index.html"
    print(f"report     {report}" if report.exists() else f"no report: {_last(error)}")


def ui_line(uri: str) -> str:
    """The address of MLflow's pages, or the command that serves them."""
    if uri.startswith(("http://", "https://")):
        return uri
    command = [_executable("mlflow"), "ui", "--workers", "1", "--backend-store-uri", uri]
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shlex.join(command)}"


def _executable(name: str) -> str:
    """The path of a program of this Python environment, relative if it is below the working directory."""
    beside = Path(sys.executable).parent / name
    current = Path.cwd()
    return (
        str(beside.relative_to(current)) if beside.is_relative_to(current) else str(beside) if beside.exists() else name
    )


def undecided(sweep: Sweep, uri: str) -> list[int]:
    """Numbers of the claims of a study that its runs do not decide."""
    text, error = _dashboards("claims", sweep.name, "--uri", uri, "--undecided").communicate()
    if not text:
        raise ConfigError(f"the claims of {sweep.name} cannot be judged: {_last(error)}")
    return [int(number) for number in json.loads(text)]


def check_claims(claims: Sequence[Mapping[str, Any]]) -> None:
    """Raise :class:`ConfigError`, a line a problem, unless the dashboards can judge these claims."""
    process = subprocess.run(
        [sys.executable, "-m", "dashboards", "claims", "--check"],
        input=json.dumps(claims),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise ConfigError(process.stderr.strip().removeprefix("error: "))


def _dashboards(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dashboards", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "the dashboards said nothing"
