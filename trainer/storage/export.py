"""``python -m trainer export RUN``: the last checkpoint of a run as a folder that transformers, vLLM and
``model.path`` load.

Checkpoints are such folders themselves; this leaves out the optimiser, and the folder stays when a run prunes its
checkpoints. With ``--mlflow`` it is also an MLflow model of the run's MLflow run, which ``mlflow.transformers`` loads.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.contract.config import ModelConfig
from trainer.contract.files import persist, room_for
from trainer.contract.settings import ConfigError
from trainer.policy.adapter import NAME as ADAPTER
from trainer.policy.model import model_path
from trainer.storage.checkpoint import newest
from trainer.storage.parts import INDEX, WEIGHTS, read_weights, weight_files, write_tensors
from trainer.storage.record import RunFolder

CONFIG = "config.json"
BESIDE = re.compile(
    r"generation_config\.json|special_tokens_map\.json|added_tokens\.json|chat_template.*|tokenizer.*|vocab.*|merges\.txt"
    r"|.+\.(model|tiktoken|py)"
)
"""Files that say how a model is sampled and how it reads text, by any tokenizer of transformers."""


def description(folder: Path, dtype: str) -> dict[str, bytes]:
    """The files of a model's ``folder`` that belong beside its weights, byte for byte, by name.

    Only its configuration now says that these are held in ``dtype``, or a loader would round them to what they were.
    """
    config = json.loads((folder / CONFIG).read_bytes())
    # transformers 5 and vLLM read the first name, older ones the second.
    config |= {key: dtype for key in ("dtype", "torch_dtype") if key == "dtype" or key in config}
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if BESIDE.fullmatch(file.name)}
    return files | {CONFIG: json.dumps(config, indent=2).encode()}


def export(run: Path, output: Path | None = None) -> Path:
    """Write the newest good checkpoint of a run's folder (or ``run`` itself, if it is one) as a model to ``output``.

    Returns where, by default ``run/model``. Raises :class:`ConfigError` when there is none, or ``output`` exists.
    """
    latest = newest(run / "checkpoints") or newest(run.parent, only=run.name)
    if latest is None:
        raise ConfigError(f"{run} has no whole checkpoint: give the folder of a run that has saved one")
    checkpoint, manifest = latest
    target = output or run / "model"
    if target.exists():
        raise ConfigError(f"{target} exists already: choose another --output, or move it away")
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with room_for(target):
            temporary.mkdir(parents=True)
            _fill(temporary, checkpoint, manifest)
            temporary.rename(target)
            persist(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _fill(folder: Path, checkpoint: Path, manifest: Mapping[str, Any]) -> None:
    weights = weight_files(manifest["files"])
    if (checkpoint / CONFIG).is_file():
        for name in [*weights, *([INDEX] if len(weights) > 1 else [])]:
            shutil.copyfile(checkpoint / name, folder / name)
        files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if BESIDE.fullmatch(file.name)}
        files[CONFIG] = (checkpoint / CONFIG).read_bytes()
        files |= {f"{ADAPTER}/{file.name}": file.read_bytes() for file in (checkpoint / ADAPTER).glob("*")}
    else:  # of an earlier version, which kept a tied weight under the name that loaders leave out
        settings = RunFolder(checkpoint.parent.parent).config()["model"]
        config = ModelConfig(**{key: value for key, value in settings.items() if key != "_target_"})
        tensors = read_weights(checkpoint, weights)
        tensors |= {name: tensors[target].clone() for name, target in manifest["aliases"].items()}
        write_tensors(folder / WEIGHTS, tensors)
        files = description(model_path(config), config.dtype)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    for file in folder.rglob("*"):
        persist(file)


def main(
    arguments: list[str], mlflow_run: Callable[[RunFolder], object], log_model: Callable[[RunFolder, Path], str]
) -> int:
    """The command line after ``export``; returns the exit code. ``log_model`` logs a model under the run's MLflow run,
    ``mlflow_run`` raises :class:`ConfigError` where there is none."""
    parser = argparse.ArgumentParser(prog="python -m trainer export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or one of its checkpoints")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to make; RUN/model unless given")
    parser.add_argument("--mlflow", action="store_true", help="log it as an MLflow model of the run's MLflow run, too")
    options = parser.parse_args(arguments)
    folder = RunFolder(options.run if (options.run / "run.yaml").is_file() else options.run.parent.parent)
    try:
        if options.mlflow:
            mlflow_run(folder)
        model = export(options.run, options.output)
        print(model)
        if options.mlflow:
            print(log_model(folder, model))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
