"""A run's exported model as an MLflow model of its MLflow run, in MLflow's transformers flavour.

``mlflow.transformers.load_model(uri)`` gives a text-generation pipeline of it. Must not import mlflow before it is
asked.
"""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from pathlib import Path

from trainer.contract.errors import reason
from trainer.contract.settings import ConfigError
from trainer.contract.store import connect
from trainer.storage.record import RunFolder
from trainer.tracking.mlflow_copy import store_of

REQUIREMENTS = ("torch", "transformers", "safetensors")
"""What MLflow notes beside the model, in the versions here; inferring it would load the model in another process."""


def mlflow_run(folder: RunFolder) -> tuple[str, str]:
    """Tracking URI and id of a run's MLflow run; :class:`ConfigError` where it has none."""
    uri, run_id = store_of(folder), folder.read_mirror().get("run_id")
    if not run_id:
        raise ConfigError(f"{folder.path} is in no MLflow store: run `python -m trainer --sync {folder.path}` first")
    return uri, str(run_id)


def log_model(folder: RunFolder, model: Path) -> str:
    """Log the ``model`` folder under the run of ``folder``; returns its URI, ``models:/...``.

    Raises :class:`ConfigError` where the run has no MLflow run or the store refuses.
    """
    uri, run_id = mlflow_run(folder)
    client, _ = connect(uri, str(folder.config()["tracking"].get("experiment") or "rlvr-entropy"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about type hints of MLflow's own, once a process
        import mlflow.pyfunc
    import mlflow.transformers
    from mlflow.models import Model

    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)  # it misses a model card on the hub
    try:
        run = client.get_run(run_id)
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment_id=run.info.experiment_id)
        # Not mlflow.transformers.log_model, which would open the run again and change its status and its end.
        logged = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.transformers,
            run_id=run_id,
            transformers_model=str(model),
            task="text-generation",
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
    except Exception as error:  # the boundary to MLflow, which raises whatever its store raises
        raise ConfigError(f"the model is in {model}, but could not be logged to MLflow: {reason(error)}") from error
    return str(logged.model_uri)
