"""``python -m dashboards record STUDY``: writes a study as the two files of :mod:`dashboards.store.record`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from dashboards.store.record import METRICS, STUDY
from dashboards.store.store import Store
from dashboards.sweep.glossary import GLOSSARY_FILE
from dashboards.sweep.load import SweepData


def write_record(store: Store, sweep: SweepData, folder: Path) -> list[Path]:
    """Write the completed runs of a sweep to ``folder``; values as float32."""
    completed = [sweep.runs[signature] for signature in sweep.completed["signature"]]
    newest = max(completed, key=lambda run: run.start_time, default=None)
    kept = [(sweep.parent, ("sweep.json",)), *((run, (GLOSSARY_FILE,) if run is newest else ()) for run in completed)]
    texts = {
        run.run_id: {path: text for path in paths if (text := store.read_text(run, path)) is not None}
        for run, paths in kept
    }
    document = {
        "runs": [asdict(run) for run, _ in kept],
        "texts": {key: value for key, value in texts.items() if value},
    }
    points = store.metrics([run.run_id for run in completed])
    points = points.sort_values(["metric", "run_id", "step", "time"]).assign(time=0)
    points = points.drop_duplicates(["metric", "run_id", "step"], keep="last")
    points = points.astype({"run_id": "category", "metric": "category", "step": "int32", "value": "float32"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    points.to_parquet(folder / METRICS, index=False, compression="zstd")
    return [folder / STUDY, folder / METRICS]
