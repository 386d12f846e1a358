"""The parts of the benchmarks that can be wrong without anybody noticing: counts, ratios, tables. Nothing is timed."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from benchmarks import bench, methods, ours, phases, report, servos
from benchmarks.common import HERE, MODEL, ratio, spread
from benchmarks.efficiency import busy, gaps
from benchmarks.floor import Load, Shape, floor, shape_of
from benchmarks.growth import slope
from benchmarks.startup import PARTS


def test_median_and_quartiles_by_hand() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 5}
    assert spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0, "n": 1}


def test_a_ratio_above_one_says_that_ours_is_faster_and_its_spread_is_the_cautious_one() -> None:
    # Ours 1, 2, 3: median 2, quartiles 1.5 and 2.5. Theirs 3, 4, 5: median 4, quartiles 3.5 and 4.5.
    assert ratio([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]) == {"median": 2.0, "low": 3.5 / 2.5, "high": 4.5 / 1.5}


def test_floor_by_hand() -> None:
    # Backbone: 4 * (2 * 4 + 2 * 2) + 3 * 4 * 8 = 144 weights; head: 4 * 5 = 20.
    shape = Shape(layers=1, width=4, attention=4, key_value=2, inner=8, vocabulary=5)
    assert (shape.backbone, shape.head) == (144, 20)
    # 1 prompt of 2 tokens, 2 responses of 3: 8 tokens, 6 of them sampled; pairs 2 + 2 * (6 + 4.5) = 23.
    load = Load(prompts=1, prompt_tokens=2, responses=2, response_tokens=3, longest=3, updates=4)
    forward, head = 2 * 144 * 8 + 4 * 4 * 23, 2 * 20 * 6
    found = floor(shape, load)
    assert found["generate"] == {"operations": forward + head, "bytes": 3 * 164 * 4}
    assert found["old"]["operations"] == 0.75 * (forward + head)
    assert found["update"]["operations"] == 3 * forward + 4 * head
    assert found["sync"]["bytes"] == 2 * 164 * 4


def test_one_update_needs_no_old_pass() -> None:
    load = Load(prompts=1, prompt_tokens=2, responses=2, response_tokens=3, longest=3, updates=1)
    assert floor(shape_of(MODEL), load)["old"] == {"operations": 0.0, "bytes": 0.0}


def test_weights_of_the_floor_are_the_operations_torch_counts() -> None:
    shape, model = shape_of(MODEL), AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 10, dtype=torch.int64), use_cache=False)
    attention = 4 * shape.attention * shape.layers * 10 * 10  # eager attention computes the masked pairs as well
    # The few operations more are those of the rotary embedding's angles.
    assert counter.get_total_flops() == pytest.approx(2 * (shape.backbone + shape.head) * 10 + attention, rel=1e-3)


def record(step: int, end: float, seconds: float, **more: float) -> dict[str, Any]:
    timings = {"time/step_s": seconds} | {f"time/{name}_s": value for name, value in more.items()}
    return {"step": step, "time": end, "metrics": timings}


def write(run: Path, lines: list[dict[str, Any]]) -> Path:
    run.mkdir()
    (run / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_step_lasts_from_the_end_of_the_one_before_and_a_last_evaluation_is_none(tmp_path: Path) -> None:
    evaluation = {"step": 3, "time": 20.0, "metrics": {"time/eval_s": 4.0}}
    run = write(tmp_path / "run", [record(0, 10.0, 3.0), record(1, 12.0, 1.5), record(2, 15.0, 2.0), evaluation])
    assert ours.step_seconds(run) == [2.0, 3.0]


def test_phases_are_medians_and_rare_ones_means(tmp_path: Path) -> None:
    lines = [
        record(0, 1.0, 99.0, generate=99.0),
        record(1, 2.0, 1.0, generate=0.25),
        record(2, 3.0, 3.0, generate=0.5, accounting=0.75),
        record(3, 4.0, 2.0, generate=1.0),
    ]
    found = phases.phases(write(tmp_path / "run", lines), since=1)
    assert found == {"time/step_s": 2.0, "time/generate_s": 0.5, "time/accounting_s": 0.25}


def test_busy_time_and_the_gaps_between_cells() -> None:
    first = [record(0, 12.0, 2.0, metrics=0.5), record(1, 13.0, 1.0)]
    second = [record(0, 18.0, 3.0), record(1, 20.0, 2.0, metrics=0.25)]
    found = busy([second, first])
    assert (found["time/step_s"], found["time/metrics_s"]) == (8.0, 0.75)
    assert gaps([second, first]) == [2.0]  # the second began at 18 - 3 = 15, the first ended at 13


def test_a_servo_is_judged_by_its_last_ten_steps(tmp_path: Path) -> None:
    signatures = {0: "a" * 12, 1: "b" * 12}
    for seed, signature in signatures.items():
        run = tmp_path / "runs" / signature
        run.mkdir(parents=True)
        (run / "status.json").write_text(json.dumps({"state": "COMPLETED"}))
        steps = [9.0, *([0.5 + seed, 1.5 + seed] * 5)]  # the first is no more among the last ten
        lines = [{"metrics": {"policy/entropy": entropy, "rollout/reward": 0.25}} for entropy in steps]
        lines.append({"metrics": {"eval/heldout/avg_at_16": 0.5, "eval/heldout/pass_at_16": 1.0}})
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sweep = tmp_path / "sweeps" / "one" / "sweep.json"
    sweep.parent.mkdir(parents=True)
    level = "1.0, method servo/repo"
    made = [{"level": level, "seed": seed, "signature": signature} for seed, signature in signatures.items()]
    sweep.write_text(json.dumps({"factor": {"name": "entropy_target"}, "cells": made}))
    table = servos.table(tmp_path)
    assert table[level]["seeds"] == 2
    assert table[level]["entropy"] == pytest.approx((1.5, 0.5**0.5))
    # Distances from 1: all 1/2 at seed 0; 1/2 and 3/2 at seed 1, whose mean square is 5/4.
    deviations = (0.5, 1.25**0.5)
    assert table[level]["deviation"] == pytest.approx((sum(deviations) / 2, (deviations[1] - 0.5) / 2**0.5))
    (line,) = report.servos({"table": table})[2:]
    assert line.startswith("| 1.0 | `repo` | 2 | 1.500 ± 0.707 | ") and line.endswith(
        "| 0.500 ± 0.000 | 1.000 ± 0.000 |"
    )


def test_the_parts_of_a_start_up_are_functions_of_the_trainer() -> None:
    assert {place for place in PARTS.values() if not callable(pkgutil.resolve_name(place))} == set()


def test_growth_exponent() -> None:
    assert slope([{"x": 1, "step_s": 1}, {"x": 2, "step_s": 5}, {"x": 4, "step_s": 20}]) == pytest.approx(2.0)


def test_readme_has_a_place_for_every_table_and_filling_it_twice_changes_nothing() -> None:
    text = (HERE / "README.md").read_text()
    sections = {name: report.section(name, None) for name in report.SECTIONS}
    once = report.filled(text, sections)
    assert report.filled(once, sections) == once
    assert "python -m benchmarks.growth" in once


def test_a_table_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 places for growth"):
        report.filled("nothing here", {"growth": "x"})


AT_HAND = [path for path in sorted((HERE / "results").glob("*.json")) if path.stem in report.SECTIONS]


@pytest.mark.parametrize("path", AT_HAND, ids=lambda path: path.stem)
def test_results_at_hand_can_be_shown_and_compared_with_themselves(path: Path) -> None:
    document = json.loads(path.read_text())
    assert f"`{document['command']}`" in report.section(path.stem, document)
    assert bench.worse(path.stem, document["data"], document["data"]) == []


def test_a_ratio_that_fell_by_more_than_a_quarter_is_named() -> None:
    def document(faster: float) -> dict[str, Any]:
        return {"compared": [{"updates": 4, "faster": {"median": faster}}]}

    assert bench.worse("step_vs_trl", document(1.9), document(2.0)) == []
    (sentence,) = bench.worse("step_vs_trl", document(1.5), document(2.0))
    assert sentence == "step_vs_trl: 4 updates, TRL / ours was 2.00 and is 1.50"


def test_a_method_is_timed_beside_the_base_before_and_after_it() -> None:
    names = [f"m{i}" for i in range(8)]
    sequence = methods.order(names)
    assert sequence == ["grpo", *names[:6], "grpo", *names[6:], "grpo"]
    seconds = dict.fromkeys(names, 3.0) | {"m6": 10.0}
    bases = iter([1.0, 2.0, 6.0])
    found = methods.ratios([(name, next(bases) if name == "grpo" else seconds[name]) for name in sequence])
    assert found == {**dict.fromkeys(names[:6], 2.0), "m6": 2.5, "m7": 0.75}
