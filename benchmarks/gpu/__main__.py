"""The command line of the GPU check: runs every part, writes the record, prints its table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import benchmarks.gpu
from benchmarks.common import ROOT
from benchmarks.gpu.parts import run_part, run_tests
from benchmarks.gpu.record import table, write_record
from benchmarks.gpu.shapes import GROUP, SHAPES


def main() -> int:
    """Measure, write the record, print its table; 1 if any part failed."""
    parser = argparse.ArgumentParser(
        description=benchmarks.gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=240, help="seconds in all")
    parser.add_argument("--responses", type=int, default=256, help=f"responses in a step, a multiple of {GROUP}")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a response")
    parser.add_argument("--shapes", nargs="*", default=["qwen2.5-0.5b", "qwen2.5-1.5b"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "records")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        run_here(options.part)
        return 0
    parts = measured(options)
    path = write_record(parts, options.output)
    print(table(parts))
    print(f"wrote {path}")
    return int(any(part["error"] for part in parts))


def run_here(request: dict[str, Any]) -> None:
    """A part in this process; only here torch is needed."""
    from benchmarks.gpu.measure import ceilings
    from benchmarks.gpu.step import step

    {"ceilings": ceilings, "step": step}[request["kind"]](
        **{key: value for key, value in request.items() if key != "kind"}
    )


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All parts, each within what is left of the time."""
    end = time.monotonic() + options.limit

    def left() -> float:
        return end - time.monotonic()

    shared = {"device": options.device}
    parts = [run_part("ceilings", min(60.0, left()), shared | {"kind": "ceilings"})]
    known = {key: parts[0].get(key, float("nan")) for key in ("matmul_tflops", "copy_gb_s")}
    if not options.no_tests:
        parts.append(run_tests(min(0.45 * options.limit, left())))
    for number, shape in enumerate(options.shapes):
        request = shared | {"kind": "step", "shape": shape, "responses": options.responses, "tokens": options.tokens}
        parts.append(run_part(shape, left() / (len(options.shapes) - number), request | known))
    return parts


if __name__ == "__main__":
    sys.exit(main())
