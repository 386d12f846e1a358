"""The parent run of a sweep in MLflow: its tags, its ``sweep.json`` and its final state.

The runs of the cells, with their metrics, are written by the trainer. mlflow is imported late, by
:mod:`trainer.contract.store`, because the import takes seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.view import EXPERIMENT_NOTE, TAG, packed, sweep_note, view, view_address, view_key
from trainer.contract.settings import ConfigError
from trainer.contract.store import SQLITE, connect, readable_errors

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""

STATUS = {"COMPLETED": "FINISHED", "FAILED": "FAILED", "STOPPED": "KILLED"}


def absolute(uri: str | None) -> str | None:
    """``uri`` with the path of a SQLite file made absolute: jobs start in other folders."""
    if uri is None or not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).expanduser().absolute()}"


class Tracker:
    """One MLflow store. Creating this makes the database and the experiment. Methods raise :class:`ConfigError`."""

    def __init__(self, uri: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self.uri = uri
        self._client, self._experiment = connect(uri, experiment)

    def open_sweep(self, document: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Create the sweep's parent run, or reuse the one it has; ``sweep.json`` is its artifact. Returns its ID."""
        study = str(document["study"])
        with readable_errors(self.uri):
            known = self._sweep(study)
            if known is not None:
                run_id = str(known.info.run_id)
                self._client.update_run(run_id, status="RUNNING")
            else:
                labels = {"kind": "sweep", "study": study}
                run_id = str(self._client.create_run(self._experiment, run_name=study, tags=labels).info.run_id)
            note = sweep_note(document, self.view_address(study))
            for key, value in {NOTE: note, **tags}.items():
                self._client.set_tag(run_id, key, value)
            self._client.log_text(run_id, json.dumps(document, indent=1), "sweep.json")
        return run_id

    def describe(self, study: str, evaluation: Mapping[str, Any]) -> None:
        """Write the view of a study (:mod:`sweeps.view`) and, where nobody wrote one, the experiment's description."""
        with readable_errors(self.uri):
            self._client.set_experiment_tag(self._experiment, TAG + view_key(study), packed(view(study, evaluation)))
            if NOTE not in self._client.get_experiment(self._experiment).tags:
                self._client.set_experiment_tag(self._experiment, NOTE, EXPERIMENT_NOTE)

    def view_address(self, study: str) -> str:
        """The page of a study's view in the MLflow UI."""
        return view_address(self.uri, self._experiment, study)

    def _sweep(self, study: str) -> Any:
        """The newest parent run of this sweep, or None."""
        runs = self._client.search_runs(
            [self._experiment],
            f"tags.kind = 'sweep' and tags.study = '{study}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return runs[0] if runs else None

    def close_abandoned(self, study: str, state: str) -> None:
        """End the parent run if ``sweep.py`` died and left it RUNNING."""
        with readable_errors(self.uri):
            known = self._sweep(study)
        if known is not None and known.info.status == "RUNNING":
            self.close_sweep(str(known.info.run_id), state)

    def close_sweep(self, run_id: str, state: str) -> None:
        """End the parent run as COMPLETED, FAILED or STOPPED. Errors of MLflow are warnings: the sweep is over."""
        try:
            with readable_errors(self.uri):
                self._client.set_tag(run_id, "state", state)
                self._client.set_terminated(run_id, STATUS[state], end_time=int(1000 * time.time()))
        except ConfigError as error:
            print(f"warning: MLflow does not know that the sweep has ended: {error}", file=sys.stderr)
