"""Copies of a study or a run for Weights & Biases or TensorBoard, where that package is installed.

MLflow stays the place of record: a mirror is made from what it holds, and can be made again.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.data.frames import Frames

_PLACES: Mapping[str, str] = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Mirror and the package that it needs."""
NAMES = tuple(_PLACES)


def mirror(frames: Frames, place: str, folder: Path) -> str:
    """Copy every run with its metrics; a sentence on where it is. ValueError where the package is not installed.

    ``folder`` is where TensorBoard's event files go, and W&B's own files.
    """
    package = _PLACES[place]
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"the package {package} is not installed: pip install {package}")
    writers: Mapping[str, Callable[[Frames, Path], str]] = {"tensorboard": _tensorboard, "wandb": _wandb}
    return writers[place](frames, folder)


def _tensorboard(frames: Frames, folder: Path) -> str:
    from tensorboard.summary import Writer

    for run, points in _runs(frames):
        place = folder / _file_name(f"{run['label']}, seed {run['seed']} {run['signature']}")
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()  # a second copy beside the first would show every point twice
        writer = Writer(str(place))
        for metric, step, value in zip(points["metric"], points["step"], points["value"], strict=True):
            writer.add_scalar(metric, value, step)
        writer.close()
    return f"event files: tensorboard --logdir {folder}"


def _wandb(frames: Frames, folder: Path) -> str:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    for run, points in _runs(frames):
        record = frames.sweep.runs.get(run["signature"])
        begun = wandb.init(
            project="rlvr-entropy",
            id=run["signature"],
            name=f"{run['label']}, seed {run['seed']}",
            group=frames.name,
            config=dict(record.params) if record else {},
            resume="allow",
            dir=str(folder),
        )
        for step, of_step in points.groupby("step"):
            begun.log(dict(zip(of_step["metric"], of_step["value"], strict=True)), step=int(str(step)))
        begun.finish()
    return "runs in the W&B project rlvr-entropy (WANDB_MODE=offline keeps them in the folder)"


def _runs(frames: Frames) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Every run that logged something, and its finite points in the order of steps."""
    points = frames.metrics.dropna(subset=["value"]).sort_values(["step", "metric"])
    for run in frames.runs.to_dict("records"):
        of_run = points[points["signature"] == run["signature"]]
        if len(of_run):
            yield {str(key): value for key, value in run.items()}, of_run


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", text).strip("._")
