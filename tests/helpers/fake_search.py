"""Synthetic searches: an Optuna study in a journal, with the runs of its confirmation, as the driver leaves them.

Called by the tests and by people who want to look at a page: ``python fake_search.py FOLDER``. Must not import sweeps.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

AVG, PASS, ENTROPY = "eval/heldout/avg_at_16", "eval/heldout/pass_at_16", "policy/entropy"
SPACE: dict[str, BaseDistribution] = {
    "controller.skywork.target": FloatDistribution(0.1, 0.4),
    "controller.skywork.step": FloatDistribution(1e-4, 1e-1, log=True),
    "controller.skywork.delay": IntDistribution(1, 8),
}
BEGUN = datetime(2026, 3, 4, 10, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTrial:
    """One trial to write."""

    params: Mapping[str, Any]
    state: TrialState = TrialState.COMPLETE
    values: Sequence[float] = ()
    """By objective; of a trial that is not complete, those of its only seed."""
    steps_run: int = 80
    steps_planned: int = 80
    seconds: float = 160.0
    reason: str = ""
    reported: Mapping[int, float] = field(default_factory=dict)
    reused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSearch:
    """One search to write."""

    name: str = "adaptive_entropy"
    objectives: Sequence[tuple[str, str]] = ((AVG, "maximize"),)
    trials: Sequence[FakeTrial] = ()
    space: Mapping[str, BaseDistribution] = field(default_factory=lambda: SPACE)
    n_trials: int = 24
    confirm: Mapping[str, Sequence[Mapping[str, float]]] | None = None
    """Level to the final metrics of its runs, on seeds 100, 101, ...; the level ``untuned`` is the default."""
    confirmed: Mapping[str, int] = field(default_factory=dict)
    """Level to trial number."""
    seeds: Sequence[int] = (0, 1)
    confirm_seed: int = 100


def write_search(output: Path, spec: FakeSearch) -> Path:
    """Write the search below ``output`` and return its sweep folder."""
    folder = output / "sweeps" / spec.name
    folder.mkdir(parents=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(study_name=spec.name, storage=storage, directions=[way for _, way in spec.objectives])
    settings = {
        "objectives": [{"metric": metric, "direction": way, "label": "", "last": 2} for metric, way in spec.objectives],
        "space": {key: {"type": type(item).__name__} for key, item in spec.space.items()}, "seeds": list(spec.seeds),
        "rungs": [1, 2], "sampler": {"name": "tpe"}, "pruner": {"name": "median"}, "n_trials": spec.n_trials,
        "confirm": {"seeds": 4, "suites": ["ood"]}, "steps": 40,
    }  # fmt: skip
    command = f"python sweep.py -m search={spec.name}"
    facts = {"search": settings, "baseline": ["method=small/skywork"], "command": command,
             "origin": {"git revision": "3f2a9c1", "command": command}}  # fmt: skip
    for key, value in facts.items():
        study.set_user_attr(key, value)
    for number, trial in enumerate(spec.trials):
        study.add_trial(_frozen(spec, number, trial))
    (folder / "sweep.json").write_text(
        json.dumps({"study": spec.name, "search": settings, "command": command, "output": str(output), "cells": []})
    )
    if spec.confirm is not None:
        _write_confirmation(output, spec, study)
    return folder


def _frozen(spec: FakeSearch, number: int, trial: FakeTrial) -> optuna.trial.FrozenTrial:
    begun = BEGUN + timedelta(minutes=2 * number)
    seeds = spec.seeds if trial.state is TrialState.COMPLETE else spec.seeds[:1]
    base = [] if "method" in trial.params else ["method=small/skywork"]
    facts = {
        "overrides": [*base, *(f"{key}={value}" for key, value in trial.params.items())],
        "cells": [{"seed": seed, "rung": rung, "run": f"{number:08x}{seed:02x}"} for rung, seed in enumerate(seeds)],
        "values": {str(seed): list(trial.values) for seed in seeds} if trial.values else {},
        "reason": trial.reason, "steps_run": trial.steps_run, "steps_planned": trial.steps_planned,
        "seconds": trial.seconds, "reused": trial.reused,
    }  # fmt: skip
    frozen = create_trial(
        state=trial.state, params=dict(trial.params), user_attrs=facts, intermediate_values=dict(trial.reported),
        distributions={key: spec.space[key] for key in trial.params},
        values=list(trial.values) if trial.state is TrialState.COMPLETE else None,
    )  # fmt: skip
    frozen.datetime_start = begun
    frozen.datetime_complete = begun + timedelta(seconds=trial.seconds) if trial.state.is_finished() else None
    return frozen


def _write_confirmation(output: Path, spec: FakeSearch, study: optuna.Study) -> None:
    name, cells = f"{spec.name}-confirm", []
    for index, (level, finals) in enumerate((spec.confirm or {}).items()):
        for position, final in enumerate(finals):
            signature = f"{zlib.crc32(name.encode()):08x}{index:02x}{position:02x}"
            write_run(output / "runs" / signature, final)
            cells.append({"signature": signature, "level": level, "label": level, "level_index": index,
                          "seed": spec.confirm_seed + position})  # fmt: skip
    folder = output / "sweeps" / name
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"study": name, "cells": cells}))
    study.set_user_attr("confirm_sweep", name)
    study.set_user_attr("confirm_levels", {level: spec.confirmed.get(level) for level in spec.confirm or {}})


def write_run(run_dir: Path, final: Mapping[str, float], state: str = "COMPLETED") -> None:
    """A run whose last two recorded values of every metric have the mean ``final``; an empty one is unfinished."""
    run_dir.mkdir(parents=True)
    (run_dir / "status.json").write_text(json.dumps({"state": state if final else "RUNNING"}))
    offsets = (-0.2, 0.01, -0.01)
    lines = [
        json.dumps({"step": step, "metrics": {key: value + offset for key, value in final.items()}})
        for step, offset in enumerate(offsets)
    ]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def single_search(trials: int = 24) -> FakeSearch:
    """A plausible search of one objective: complete, pruned, failed and running trials, and its confirmation."""
    noise, made = np.random.default_rng(5), []
    for number in range(trials):
        params = {"controller.skywork.target": float(noise.uniform(0.1, 0.4)),
                  "controller.skywork.step": float(10 ** noise.uniform(-4, -1)),
                  "controller.skywork.delay": int(noise.integers(1, 9))}  # fmt: skip
        made.append(_plausible(number, params, noise))
    best = max((n for n, t in enumerate(made) if t.state is TrialState.COMPLETE), key=lambda n: made[n].values[0])
    confirm = {
        level: [{AVG: base + 0.01 * seed + float(noise.normal(0, 0.004)), ENTROPY: 0.2, "eval/ood/avg_at_16": base / 2}
                for seed in range(6)]
        for level, base in (("untuned", 0.31), ("tuned", 0.352))
    }  # fmt: skip
    return FakeSearch(trials=made, n_trials=trials, confirm=confirm, confirmed={"tuned": best})


def _plausible(number: int, params: Mapping[str, Any], noise: np.random.Generator) -> FakeTrial:
    distance = abs(params["controller.skywork.target"] - 0.25) / 0.15
    distance += abs(math.log10(params["controller.skywork.step"]) + 2.0) / 4
    value = 0.40 - 0.09 * distance + float(noise.normal(0, 0.012))
    curve = {step: value * (1 - math.exp(-step / 14)) + float(noise.normal(0, 0.004)) for step in range(0, 41, 5)}
    if number % 11 == 7:
        return FakeTrial(params=params, state=TrialState.FAIL, steps_run=12, seconds=25.0,
                         reason="the loss is not finite at step 12")  # fmt: skip
    if number == 23:
        reported = {step: value for step, value in curve.items() if step <= 15}
        return FakeTrial(params=params, state=TrialState.RUNNING, steps_run=15, seconds=30.0, reported=reported)
    if number > 4 and distance > 0.75:
        stop = 10 if number % 2 else 20
        reported = {step: value for step, value in curve.items() if step <= stop}
        return FakeTrial(params=params, state=TrialState.PRUNED, values=[reported[stop]], steps_run=stop,
                         seconds=2.1 * stop, reason=f"below the median of earlier trials at step {stop}",
                         reported=reported)  # fmt: skip
    return FakeTrial(params=params, values=[value], reported=curve, seconds=165.0)


def front_search(trials: int = 30) -> FakeSearch:
    """A conditional search of three objectives."""
    space: dict[str, BaseDistribution] = {
        "method": CategoricalDistribution(["grpo", "small/siren", "small/skywork"]),
        "regularizer.siren.coef": FloatDistribution(0.05, 5.0, log=True),
        "regularizer.siren.include_crossing": CategoricalDistribution([True, False]),
        "controller.skywork.target": FloatDistribution(0.1, 0.4),
    }
    noise, made = np.random.default_rng(9), []
    for number in range(trials):
        method = ["grpo", "small/siren", "small/skywork"][number % 3]
        params: dict[str, Any] = {"method": method}
        if method == "small/siren":
            params["regularizer.siren.coef"] = float(0.05 * 100 ** noise.uniform(0, 1))
            params["regularizer.siren.include_crossing"] = bool(noise.integers(0, 2))
        if method == "small/skywork":
            params["controller.skywork.target"] = float(noise.uniform(0.1, 0.4))
        spread = float(noise.uniform(0, 1))
        values = [0.40 - 0.1 * spread**2 + float(noise.normal(0, 0.01)), 0.6 + 0.2 * spread, 0.12 + 0.2 * spread]
        if number % 7 == 6:
            made.append(FakeTrial(params=params, values=values, state=TrialState.PRUNED, steps_run=20,
                                  reason="entropy 0.008 below the floor of 0.01 at step 20"))  # fmt: skip
        else:
            made.append(FakeTrial(params=params, values=values))
    levels = {"untuned": 0.0, "tuned-1": 0.01, "tuned-2": 0.03}
    confirm = {
        level: [{AVG: 0.36 + gain + 0.002 * seed**2 * (level != "untuned"), PASS: 0.6 + 2 * gain, ENTROPY: 0.15 + gain,
                 "eval/ood/avg_at_16": 0.1, "eval/ood/pass_at_16": 0.3 + 0.01 * seed} for seed in range(4)]
        for level, gain in levels.items()
    }  # fmt: skip
    return FakeSearch(name="method", objectives=((AVG, "maximize"), (PASS, "maximize"), (ENTROPY, "maximize")),
                      trials=made, space=space, n_trials=trials, confirm=confirm,
                      confirmed={"tuned-1": 0, "tuned-2": 1})  # fmt: skip


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    for spec in (single_search(), front_search(), FakeSearch(name="empty")):
        print(write_search(target, spec))
