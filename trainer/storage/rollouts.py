"""All responses of a step, token by token, as one compressed Parquet file: ``RUN/rollouts/step-000010.parquet``.

A file is written atomically, and equal responses give equal bytes. It must not know what makes a response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.contract.files import make_folder, persist, write_atomic

if TYPE_CHECKING:
    import pyarrow

FOLDER = "rollouts"
NUMBERS = ("logprobs", "entropy", "advantage", "influence")
"""Columns with a number (float32) for each sampled token: nats, nats, units of the advantage, nats of the step's mean
entropy. A response that no ledger looked at has no ``influence``."""


def schema() -> pyarrow.Schema:
    """Columns and their types, in order."""
    import pyarrow

    plain: dict[str, pyarrow.DataType] = {
        "step": pyarrow.int64(),
        "group": pyarrow.int64(),
        "prompt_id": pyarrow.string(),
        "prompt": pyarrow.string(),
        "response": pyarrow.string(),
        "answer": pyarrow.string(),
        "reward": pyarrow.float32(),
        "correct": pyarrow.bool_(),
        "finish_reason": pyarrow.string(),
        "tokens": pyarrow.list_(pyarrow.string()),
        "token_ids": pyarrow.list_(pyarrow.int32()),
    }
    return pyarrow.schema(plain | dict.fromkeys(NUMBERS, pyarrow.list_(pyarrow.float32())))


def write_step(run: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Keep the responses of ``step``, one mapping by the columns of :func:`schema` each; where they are."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema()), sink, compression="zstd")
    path = make_folder(run / FOLDER) / f"step-{step:06d}.parquet"
    write_atomic(path, sink.getvalue().to_pybytes())
    return path


def kept_steps(run: Path, until: int | None = None) -> dict[int, Path]:
    """The file of each step that is kept, not after ``until``, in order."""
    files = {int(path.stem.removeprefix("step-")): path for path in sorted((run / FOLDER).glob("step-*.parquet"))}
    return {step: path for step, path in files.items() if until is None or step <= until}


def forget_after(run: Path, step: int) -> None:
    """Remove the steps after ``step``, and what a death in the middle of a write left."""
    later = [path for number, path in kept_steps(run).items() if number > step]
    later += (run / FOLDER).glob(".*.tmp")
    for path in later:
        path.unlink()
    if later:
        persist(run / FOLDER)
