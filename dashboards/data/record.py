"""``python -m dashboards record STUDY``: writes a study as the two files of :mod:`dashboards.store.record`."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.store.files import write_atomically
from dashboards.store.record import METRICS, STUDY, RecordStore, is_record
from dashboards.store.store import RunRecord, Store
from dashboards.sweep.glossary import GLOSSARY_FILE
from dashboards.sweep.load import SweepData

SAMPLES = "samples.json"
MOST_SAMPLES = 1 << 20
"""Characters of sampled responses that a record keeps; a study that has more keeps none."""

_OUTPUT = "outputs"
"""What stands in a record for the output folder of the machine that made it."""


def write_record(store: Store, sweep: SweepData, folder: Path) -> list[Path]:
    """Write the completed runs of a sweep to ``folder``; values as float32, and sampled responses where they are few.

    Completed runs that a record in ``folder`` has of the same cells, and the store lacks, stay in it: a study that is
    run in parts, or on several machines, grows into one record.
    """
    completed = [sweep.runs[signature] for signature in sweep.completed["signature"]]
    newest = max(completed, key=lambda run: run.start_time, default=None)
    kept = [(sweep.parent, ("sweep.json",)), *((run, (GLOSSARY_FILE,) if run is newest else ()) for run in completed)]
    texts = {
        run.run_id: {path: text for path in paths if (text := store.read_text(run, path)) is not None}
        for run, paths in kept
    }
    samples = {run.run_id: text for run in completed if (text := store.read_text(run, SAMPLES)) is not None}
    if sum(map(len, samples.values())) <= MOST_SAMPLES:
        for run_id, text in samples.items():
            texts[run_id][SAMPLES] = text
    earlier, earlier_points, earlier_texts = _earlier(folder, sweep)
    document = {
        "runs": [*(asdict(run) for run, _ in kept), *(asdict(run) for run in earlier)],
        "texts": earlier_texts | {key: value for key, value in texts.items() if value},
    }
    points = pd.concat([store.metrics([run.run_id for run in completed]), earlier_points])
    points = points.sort_values(["metric", "run_id", "step", "time"]).assign(time=0)
    points = points.drop_duplicates(["metric", "run_id", "step"], keep="last")
    points = points.astype({"run_id": "category", "metric": "category", "step": "int32", "value": "float32"})
    table = io.BytesIO()
    points.to_parquet(table, index=False, compression="zstd")
    study = json.dumps(_portable(document, texts[sweep.parent.run_id]), indent=1, sort_keys=True) + "\n"
    return [write_atomically(table.getvalue(), folder / METRICS), write_atomically(study, folder / STUDY)]


def _earlier(folder: Path, sweep: SweepData) -> tuple[list[RunRecord], pd.DataFrame, dict[str, dict[str, str]]]:
    """Runs of a record in ``folder`` whose cells the sweep has, but not completed, their points and their texts."""
    if not is_record(str(folder)):
        return [], pd.DataFrame(), {}
    record = RecordStore.open(folder)
    missing = set(sweep.cells["signature"]) - set(sweep.completed["signature"])
    runs = record.runs_with_tag("signature", sorted(missing))
    texts = {run.run_id: record.texts[run.run_id] for run in runs if run.run_id in record.texts}
    return runs, record.metrics([run.run_id for run in runs]), texts


def _portable(document: Any, texts: dict[str, str]) -> Any:
    """The document with ``outputs`` in place of the folder that the runs were written to."""
    written_to = json.loads(texts.get("sweep.json", "{}")).get("output")

    def replaced(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: replaced(value) for key, value in item.items()}
        if isinstance(item, list):
            return [replaced(value) for value in item]
        return item.replace(str(written_to), _OUTPUT) if isinstance(item, str) and written_to else item

    return replaced(document)
