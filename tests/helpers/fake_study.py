"""A synthetic study in a fresh SQLite MLflow store, laid out exactly as sweeps and trainer lay it out.

Called by the tests of dashboards and by people who want to look at a page: ``python fake_study.py FOLDER`` writes
FOLDER/mlflow.db with a study ``clip_high`` of 4 levels x 3 seeds x 40 steps. Must not import trainer or sweeps.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

CLIP_HIGH = {
    "name": "clip_high", "key": "surrogate.clip_high", "label": "Upper clip threshold", "unit": "", "ordered": True,
    "hypothesis": {
        "metric": "policy/entropy", "direction": "increase",
        "statement": "A higher upper clip threshold lets unlikely right tokens grow and keeps entropy from collapsing.",
        "source": "Yu et al. 2025, DAPO, section 3.1",
    },
}  # fmt: skip
HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
EVERYWHERE = f"\"'></title></style></script>{HOSTILE}<a href=\"javascript:document.title='pwned'\">x</a>{{{{7*7}}}}"
"""Leaves whatever it stands in: a tag, an attribute, a title, a style, a script, a template."""
DONE = "COMPLETED"
PROVENANCE: dict[str, Any] = {
    "git": {"revision": "3f2a9c1", "dirty": True, "diff": "- a\n+ b"}, "python": "3.11.7",
    "packages": {"torch": "2.13.0+cpu", "vllm": "0.32.0"}, "hardware": {"cpu": "some CPU", "cores": 2, "gpus": []},
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSpec:
    """What to write."""

    study: str = "clip_high"
    factor: Mapping[str, object] | None = field(default_factory=lambda: CLIP_HIGH)
    levels: Sequence[str] = ("0.2", "0.28", "0.4", "0.5")
    seeds: int = 3
    steps: int = 40
    effect: float = 0.0065
    """Final entropy gained per level, nats."""
    states: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(level index, seed) to state, where it is not COMPLETED; MISSING writes no run."""
    text: str = ""
    """Planted in one response and in the message of failed cells."""
    everywhere: str = ""
    """Planted in prompts, parameters, provenance and the command as well."""
    ledger_every: int = 2
    """Steps between ledgers; 0: none, and no tokens."""
    glossary: bool = True
    """Whether the runs logged ``metrics.json``; those of before it did not."""
    extra_metrics: int = 0
    """More metric keys, to reach the width of a real run."""
    claims: Sequence[Mapping[str, object]] = ()
    """What ``sweep.json`` of a study of claims lists."""


def write_study(folder: Path, spec: FakeSpec) -> str:
    """Write the study below ``folder`` and return the tracking URI."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("rlvr")
    location = (folder / "artifacts").as_uri()
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("rlvr", location)
    command = f"python sweep.py -m factor={spec.study}{spec.everywhere}"
    tags = {"kind": "sweep", "study": spec.study, "factor": spec.study, "command": command}
    if spec.claims:
        tags["claims"] = ",".join(str(claim["number"]) for claim in spec.claims)
    parent = client.create_run(experiment_id, run_name=f"{spec.study} sweep", tags=tags)
    cells = [
        {"signature": signature_of(spec, index, seed), "level": level, "label": level, "level_index": index,
         "seed": seed, "overrides": [*overrides(level), f"seed={seed}"]}
        for index, level in enumerate(spec.levels)
        for seed in range(spec.seeds)
    ]  # fmt: skip
    document = {"study": spec.study, "command": command, "factor": spec.factor, "cells": cells, "output": str(folder)}
    document |= {"claims": list(spec.claims)} if spec.claims else {}
    client.log_text(parent.info.run_id, json.dumps(document), "sweep.json")
    for cell in cells:
        state = spec.states.get((int(str(cell["level_index"])), int(str(cell["seed"]))), DONE)
        if state != "MISSING":
            _write_cell(client, experiment_id, parent.info.run_id, spec, cell, state)
    client.set_terminated(parent.info.run_id)
    return uri


def overrides(level: str) -> list[str]:
    """Those of a level ``0.2``, or ``0.2, subset random`` of a crossed sweep."""
    value, _, subset = level.partition(", subset ")
    return [f"surrogate.clip_high={value}", *([f"task.subset={subset}"] if subset else [])]


def signature_of(spec: FakeSpec, index: int, seed: int) -> str:
    """A stable stand-in for a configuration hash."""
    return f"{spec.study[:4]}{index:02d}{seed:02d}"


def _write_cell(
    client: MlflowClient, experiment_id: str, parent_id: str, spec: FakeSpec, cell: Mapping[str, object], state: str
) -> None:
    level, seed = int(str(cell["level_index"])), int(str(cell["seed"]))
    tags = {"kind": "cell", "mlflow.parentRunId": parent_id, "study": spec.study, "factor": spec.study,
            "state": state, "mlflow.source.git.commit": "3f2a9c1",
            **{key: str(cell[key]) for key in ("signature", "level", "level_index", "seed")}}  # fmt: skip
    run_id = client.create_run(experiment_id, run_name=f"{cell['level']}-{seed}", tags=tags).info.run_id
    params = {"steps": spec.steps, "seed": seed, "surrogate.clip_high": cell["level"], "task._target_": "Countdown",
              "rollout.prompts_per_step": 32, "rollout.group_size": 16, "optim.lr": "1e-4",
              "hardware.device": "cpu"}  # fmt: skip
    if spec.everywhere:
        params["task.template"] = spec.everywhere
    steps = spec.steps if state == DONE else max(spec.steps // 3, 2)
    history = curves(spec, level, seed)
    start = int(time.time() * 1000)
    points = [
        Metric(key, value, start + step * 1500, step)
        for step in range(steps)
        for key, value in history[step].items()
    ]  # fmt: skip
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()], metrics=points[:900])
    for begin in range(900, len(points), 900):
        client.log_batch(run_id, metrics=points[begin : begin + 900])
    packages = {**PROVENANCE["packages"], "torch": f"2.13.0+cpu{spec.everywhere}"}
    client.log_text(run_id, json.dumps(PROVENANCE | {"packages": packages}), "provenance.json")
    if spec.glossary:
        client.log_text(run_id, json.dumps(glossary(spec.everywhere)), "metrics.json")
    client.log_text(run_id, json.dumps(_samples(spec, level, seed, steps)), "samples.json")
    client.log_text(run_id, json.dumps(_reliability(level, seed, steps)), "reliability.json")
    client.log_text(run_id, json.dumps(_contamination(spec)), "contamination.json")
    if spec.ledger_every:
        client.log_text(run_id, json.dumps(_tokens(spec, level, seed, steps)), "tokens.json")
    if state == "FAILED":
        client.log_batch(run_id, tags=[RunTag("message", f"RuntimeError: non-finite loss at step 12 {spec.text}")])
    client.set_terminated(run_id, {DONE: "FINISHED", "FAILED": "FAILED", "RUNNING": "RUNNING"}.get(state, "KILLED"))


def glossary(everywhere: str = "") -> list[dict[str, object]]:
    """Some of the trainer's definitions, as its ``metrics.json`` has them."""
    rows: list[tuple[str, str, str, list[float | None], str | None]] = [
        ("policy/entropy", "nats", "exact full-vocabulary entropy per response token", [0.0, None], None),
        ("rollout/reward", "reward", "verifier's reward, before shaping", [None, None], "higher"),
        ("rollout/generated_reward", "reward", "verifier's reward of all responses sampled", [None, None], "higher"),
        ("policy/clip_frac_high", "0 to 1", "share of response tokens clipped above", [0.0, 1.0], None),
        ("policy/grad_norm", "1", "2-norm of the gradient", [0.0, None], None),
        ("calibration/ece", "0 to 1", "expected calibration error", [0.0, 1.0], "lower"),
        ("eval/<suite>/avg_at_<n>", "0 to 1", "mean accuracy of <n> samples per problem", [0.0, 1.0], "higher"),
        ("eval/<suite>/pass_at_<k>", "0 to 1", "chance that one of <k> samples is correct", [0.0, 1.0], "higher"),
        ("eval/<suite>/avg_at_<n>_se", "1", "standard error of avg_at_<n> over problems", [0.0, None], None),
        ("entropy/delta_<quadrant>", "nats", "part of the change", [None, None], None),
        ("entropy/delta_predicted_<estimator>", "nats", "prediction by <estimator>", [None, None], None),
    ]  # fmt: skip
    return [
        {
            "name": name,
            "unit": unit + everywhere,
            "definition": definition + everywhere,
            "range": ends,
            "better": better,
        }
        for name, unit, definition, ends, better in rows
    ]


def curves(spec: FakeSpec, level: int, seed: int) -> list[dict[str, float]]:
    """Metrics by step: entropy decays towards a floor that rises with the level; the rest follows from it."""
    noise, shared = np.random.default_rng([7, level, seed]), np.random.default_rng([3, seed]).normal()
    floor = 0.137 + spec.effect * level + 0.004 * shared
    history = []
    for step in range(spec.steps):
        share = math.exp(-step / 11)
        entropy = floor + (0.29 - floor) * share + noise.normal(0, 0.0022)
        reward = 1.93 - 1.30 * math.exp(entropy) + noise.normal(0, 0.018)
        history.append(_step_metrics(spec, level, step, entropy, reward, noise))
        if spec.ledger_every and step % spec.ledger_every == 0:
            history[-1] |= _ledger(spec, level, seed, step, (floor - 0.29) / 11 * share)
    return history


def _ledger(spec: FakeSpec, level: int, seed: int, step: int, slope: float) -> dict[str, float]:
    """The ledger of a step in which the entropy changes by about ``slope`` nats; levels differ in negative, unlikely
    tokens, each of which takes away what the level adds to the floor over the whole run."""
    noise = np.random.default_rng([5, level, seed, step])
    quadrants = {
        "positive_likely": -0.002,
        "positive_unlikely": 0.0012,
        "negative_likely": 0.0014,
        "negative_unlikely": -0.002 + spec.effect * level / spec.steps,
    }
    quadrants = {name: value + noise.normal(0, 2e-5) for name, value in quadrants.items()}
    policy = sum(quadrants.values()) + noise.normal(0, 2e-5)
    residual = float(noise.normal(0, 1e-4))
    parts = {"policy": policy, "regularizers": 0.0, "weight_decay": 0.0, "momentum": slope - policy - residual}
    found = {"measured": slope, "predicted": slope - residual, "residual": residual, **parts, **quadrants}
    found |= {"policy_agreed": 0.7 * policy, "policy_noise": 0.3 * policy}
    correlations = {"exact": 0.6, "steer_published": 0.5, "steer_released": 0.45, "covariance": 0.4, "surprisal": 0.35,
                    "advantage": -0.02, "probability": -0.08}  # fmt: skip
    found |= {f"corr_{name}": value + noise.normal(0, 0.05) for name, value in correlations.items()}
    return {f"ledger/{name}": float(value) for name, value in found.items()}


def _step_metrics(
    spec: FakeSpec, level: int, step: int, entropy: float, reward: float, noise: np.random.Generator
) -> dict[str, float]:
    def around(value: float, spread: float) -> float:
        return float(value + noise.normal(0, spread))

    spread = (entropy - 0.1) / 0.19
    metrics = {
        "policy/entropy": entropy, "rollout/reward": reward, "rollout/generated_reward": reward,
        "policy/entropy_positive": around(entropy * 0.9, 0.003),
        "policy/entropy_negative": around(entropy * 1.1, 0.003), "policy/surprisal": around(entropy, 0.004),
        "policy/clip_frac_high": max(around(0.012 / (1 + level), 0.0008), 0),
        "policy/clip_frac_low": around(0.006, 0.0008),
        "policy/kl_old": around(0.002, 0.0002), "policy/grad_norm": around(0.4, 0.05),
        "rollout/length_mean": around(25 + 0.2 * level, 0.3), "rollout/truncated_frac": max(around(0.01, 0.004), 0),
        "rollout/zero_std_frac_all_correct": around(0.1 + 0.3 * (1 - spread), 0.01),
        "rollout/zero_std_frac_all_incorrect": around(0.12, 0.01),
        "diversity/distinct_1": around(0.2 + 0.1 * spread, 0.004),
        "diversity/distinct_4": around(0.45 + 0.4 * spread, 0.008),
        "diversity/self_bleu": around(0.6 - 0.3 * spread, 0.01),
        "diversity/distinct_answers": around(3 + 4 * spread, 0.1),
        "diversity/distinct_correct": around(1.4 + spread, 0.05),
        "diversity/answer_entropy": around(0.7 + spread, 0.03),
        "calibration/ece": around(0.22 - 0.08 * spread, 0.008), "calibration/brier": around(0.2, 0.006),
        "calibration/auroc": around(0.72, 0.01), "engine/logprob_gap_max": abs(around(1.2e-6, 2e-7)),
        "engine/logprob_gap_mean": abs(around(2e-7, 2e-8)), "entropy/delta_measured": around(-0.002, 0.001),
        "time/step_s": around(1.3, 0.08), "throughput/tokens_per_s": around(9500, 300),
    }  # fmt: skip
    metrics |= {f"entropy/extra_{index}": around(0.0, 1.0) for index in range(spec.extra_metrics)}
    if step % 10 == 0 or step == spec.steps - 1:
        for suite, base in (("heldout", 0.19), ("ood", 0.07)):
            gain = 0.55 * (reward - 0.2)
            for k, ceiling in ((1, 0.0), (2, 0.14), (4, 0.3), (8, 0.46), (16, 0.62)):
                value = base + gain * (1 - ceiling) + ceiling * (0.75 + 0.3 * spread)
                metrics[f"eval/{suite}/pass_at_{k}"] = min(around(value, 0.01), 1.0)
            metrics[f"eval/{suite}/avg_at_16"] = around(base + gain, 0.01)
            metrics[f"eval/{suite}/avg_at_16_se"] = 0.05
            metrics[f"eval/{suite}/maj_at_16"] = around(base + 1.2 * gain, 0.01)
            for name in ("ece", "brier", "auroc", "distinct_4", "self_bleu"):
                metrics[f"eval/{suite}/{name}"] = around(0.4, 0.01)
        if step == spec.steps - 1:
            metrics["support/heldout_srr"] = around(0.9, 0.01)
    return metrics


def _samples(spec: FakeSpec, level: int, seed: int, steps: int) -> dict[str, object]:
    rows = []
    for step in sorted({0, steps // 2, steps - 1}):
        for index, (first, reward) in enumerate(
            [("4*7=28,28-2=26", 1.0), ("7+3=10,10*2=20,20+4=24", 0.0), ("7*4=28,28-2=26", 1.0)]
        ):
            text = first + (f" {spec.text}" if spec.text and level == 0 and seed == 0 and index == 0 else "")
            rows.append(
                [step, "evaluation", f"4,7,3,2=2{index}:{spec.everywhere}", text, reward, first.rpartition("=")[2]]
            )
    return {"columns": ["step", "source", "prompt", "response", "reward", "answer"], "data": rows}


def _tokens(spec: FakeSpec, level: int, seed: int, steps: int) -> dict[str, object]:
    noise = np.random.default_rng([13, level, seed])
    rows = []
    for step in range(0, steps, spec.ledger_every):
        for reward in (0.0, 1.0, 1.0):
            tokens = ["4", "*", "7", "=", "28", spec.text or "<eos>"]
            sign = 1.0 if reward else -1.0
            rows.append({
                "step": step, "update": 0, "prompt": f"4,7=28:{spec.everywhere}", "reward": reward, "tokens": tokens,
                "influence": [-4e-5 * sign, 1e-5 * sign, 0.0, *(1e-6 * noise.normal(size=3))],
                "entropy": [0.5, 1.0, 0.0, 0.0, 0.1, 0.2], "logprobs": [-0.5, -1.0, -0.1, 0.0, -0.1, -0.2],
                "advantage": [sign] * 6, "ratio": [1.0, 1.2, 0.8, 1.0, 1.0, 1.0], "coefficient": [sign] * 6,
            })  # fmt: skip
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def _reliability(level: int, seed: int, steps: int) -> list[dict[str, object]]:
    noise = np.random.default_rng([11, level, seed])
    return [
        {"step": step, "suite": suite, "confidence_of": "logprob", "bin": index, "confidence": 0.05 + 0.1 * index,
         "accuracy": float(np.clip((0.05 + 0.1 * index) ** (1.3 + 0.25 * (4 - level)) + noise.normal(0, 0.02), 0, 1)),
         "count": 20 + 15 * index}
        for step in (0, steps - 1)
        for suite in ("heldout", "ood")
        for index in range(2, 10)
    ]  # fmt: skip


def _contamination(spec: FakeSpec) -> list[dict[str, object]]:
    found = {"step": 0, "prompts": 64, "words": 8}
    return [
        found | {"suite": "heldout", "overlapping": 0, "share": 0.0, "example": None},
        found | {"suite": "ood", "overlapping": 3, "share": 3 / 64, "example": f"4,7,3,2=26:{spec.everywhere}"},
    ]


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    print(write_study(target, FakeSpec(text=HOSTILE, extra_metrics=25)))
