"""How seconds per step grow: with batch, response length, model size and number of updates; MLflow with its runs.

    python -m benchmarks.growth [--steps 8] [--stored 60]

Only one thing moves at a time, everything else is at its default. Models of other sizes are Qwen3 with random weights
and the shipped tokenizer, made on the fly so that they never end a response: its length is the budget. Draws
``growth.png`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import HERE, MODEL, save

COMMON = ("evaluation=none", "tracking=none", "accounting=none", "checkpoint.every=100000")
WARM_UP = 3
WIDTHS = (64, 128, 256, 512)
AXES: dict[str, dict[str, Any]] = {
    "batch": {"unit": "responses per step", "key": "rollout.prompts_per_step", "values": (8, 16, 32, 64, 128), "x": 16},
    "length": {"unit": "tokens per response", "key": "rollout.max_tokens", "values": (16, 32, 64, 128), "x": 1},
    "updates": {"unit": "updates per rollout", "key": "optim.updates_per_rollout", "values": (1, 2, 4, 8, 16), "x": 1},
    "model": {"unit": "width of the model", "key": "model.path", "values": WIDTHS, "x": 1},
}


def random_model(folder: Path, width: int) -> Path:
    """A Qwen3 of four layers with random weights and the shipped tokenizer, whose end of text is next to impossible."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path = folder / f"model{width}"
    if not path.exists():
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(MODEL)
        config.hidden_size, config.intermediate_size = width, 3 * width
        config.num_attention_heads = max(2, width // config.head_dim)
        config.num_key_value_heads = config.num_attention_heads // 2
        config.tie_word_embeddings = False
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # the first channel is the same large number everywhere, and the end's logit its negative
            model.get_input_embeddings().weight[:, 0] = 1.0
            end = model.get_output_embeddings().weight[tokenizer.eos_token_id]
            end.zero_()[0] = -1.0
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    return path


def axis(name: str, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Points of one axis: seconds per step and by phase."""
    found, spec, runs = [], AXES[name], []
    for value in spec["values"]:
        given = random_model(folder, value) if name == "model" else value
        more = [f"model.path={random_model(folder, 128)}"] if name == "length" else []
        runs.append(
            ours.make_run(folder / name / str(value), *COMMON, *more, f"{spec['key']}={given}", f"steps={steps}")
        )
    ours.train(*runs)
    for value, run in zip(spec["values"], runs, strict=True):
        lines = [line["metrics"] for line in ours.steps(run)][WARM_UP:]
        keys = sorted({key for line in lines for key in line if key.startswith("time/")})
        medians = {key: statistics.median(line.get(key, 0.0) for line in lines) for key in keys}
        found.append({"x": value * spec["x"], "step_s": statistics.median(ours.step_seconds(run)[WARM_UP:]), **medians})
        print(name, found[-1], flush=True)
    return found


def stored(folder: Path, run: Path, count: int) -> list[dict[str, float]]:
    """Seconds to copy one more run into an MLflow store that holds ``x`` runs already."""
    from trainer.tracking.mlflow_copy import sync

    points = []
    for number in range(count):
        copy = folder / "stored" / str(number)
        shutil.copytree(run, copy)
        config = (copy / "run.yaml").read_text().replace("seed: 0", f"seed: {number}")
        (copy / "run.yaml").write_text(config)
        start = time.perf_counter()
        sync(copy, f"sqlite:///{folder}/mlflow.db")
        points.append({"x": number, "step_s": time.perf_counter() - start})
    return points[1:]  # the first one imports mlflow and makes the store


def plot(data: dict[str, list[dict[str, float]]], path: Path) -> None:
    """One panel an axis: seconds per step, with a line through the first point of slope 1 (linear growth)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullLocator

    figure, panels = pyplot.subplots(1, len(data), figsize=(4 * len(data), 3.2), layout="constrained")
    for panel, (name, points) in zip(panels, data.items(), strict=True):
        x, y = [point["x"] for point in points], [point["step_s"] for point in points]
        if name == "mlflow":
            panel.plot(x, y, ".")
            panel.set(xlabel="runs in the store", ylabel="seconds to copy one more run", ylim=(0, None))
        else:
            for key, label in (("time/generate_s", "generate"), ("time/update_s", "update")):
                panel.loglog(x, [point.get(key, 0.0) for point in points], ":", label=label)
            panel.loglog(x, y, "o-", label="step")
            panel.loglog(x, [y[0] * value / x[0] for value in x], "k--", lw=0.7, label="linear")
            panel.set(xlabel=AXES[name]["unit"], ylabel="seconds per step")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.set_xticks(x)
            for ticks in (panel.xaxis, panel.yaxis):
                ticks.set_major_formatter("{x:g}")
                ticks.set_minor_locator(NullLocator())
            panel.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure, draw, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--stored", type=int, default=60, help="runs put into one MLflow store")
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = {name: axis(name, folder, options.steps) for name in options.axes}
        first = next(path.parent for path in folder.glob("*/*/run.yaml"))
        data["mlflow"] = stored(folder, first, options.stored)
    plot(data, HERE / "growth.png")
    save("growth", {"axes": data})
    print(json.dumps({name: slope(points) for name, points in data.items()}))


def slope(points: list[dict[str, float]]) -> float:
    """Growth exponent between the last two points: 1 is linear."""
    import math

    a, b = points[-2:]
    return math.log(b["step_s"] / a["step_s"]) / math.log(b["x"] / a["x"])


if __name__ == "__main__":
    main()
