"""The declared table: what is legal, what is covered, what an unknown key says."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from trainer.metrics.declared import ANY, BETTER, RANGES
from trainer.metrics.table import (
    METRICS,
    PLACEHOLDERS,
    check,
    find,
    glossary_json,
    glossary_markdown,
    nearest_key,
)

CONTRACT = [
    "policy/entropy",
    "policy/entropy_positive",
    "policy/entropy_negative",
    "policy/surprisal",
    "policy/kl_old",
    "policy/clip_frac_low",
    "policy/clip_frac_high",
    "policy/ratio_max",
    "policy/grad_norm",
    "policy/loss",
    "policy/lr",
    "policy/updates",
    "policy/advantage_positive_frac",
    "entropy/delta_measured",
    "entropy/delta_predicted_covariance",
    "entropy/delta_predicted_exact",
    "entropy/delta_positive_likely",
    "entropy/corr_spearman_steer_released",
    "rollout/reward",
    "rollout/reward_std",
    "rollout/num_tokens",
    "rollout/length_mean",
    "rollout/length_max",
    "rollout/truncated_frac",
    "rollout/unverifiable_frac",
    "rollout/zero_std_frac_all_incorrect",
    "rollout/zero_std_frac_all_correct",
    "diversity/distinct_1",
    "diversity/distinct_4",
    "diversity/self_bleu",
    "diversity/distinct_answers",
    "diversity/distinct_correct",
    "diversity/answer_entropy",
    "calibration/ece",
    "calibration/brier",
    "calibration/auroc",
    "calibration/ece_majority",
    "calibration/brier_majority",
    "engine/logprob_gap_max",
    "engine/logprob_gap_mean",
    "engine/weight_version",
    "eval/heldout/avg_at_16",
    "eval/ood/pass_at_1",
    "eval/my-suite_2/maj_at_64",
    "eval/heldout/ece",
    "support/heldout_srr",
    "time/generate_s",
    "time/old_s",
    "time/update_s",
    "time/sync_s",
    "time/metrics_s",
    "time/eval_s",
    "time/step_s",
    "throughput/tokens_per_s",
    "memory/peak_gib",
]


def test_every_name_of_the_contract_is_declared() -> None:
    check(CONTRACT)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("policy/entrophy", "policy/entropy"),
        ("eval/ood/pas_at_4", "eval/ood/pass_at_4"),
        ("eval/ood/pass@4", "eval/ood/pass_at_4"),
        ("time/generate", "time/generate_s"),
        ("diversity/selfbleu", "diversity/self_bleu"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    assert nearest_key(key) == nearest
    with pytest.raises(ValueError, match=re.escape(f"{key!r} (nearest: {nearest!r})")):
        check(["policy/loss", key])


@pytest.mark.parametrize(
    "key", ["eval/ood/pass_at_0", "eval/ood/pass_at_", "eval/a/b/pass_at_1", "entropy/delta_foo", ""]
)
def test_families_do_not_cover_more_than_they_say(key: str) -> None:
    assert find(key) is None


def test_keys_are_unique_legal_in_mlflow_and_do_not_overlap() -> None:
    examples = {"<suite>": "heldout", "<k>": "4", "<n>": "16", "<component>": "sign"}
    examples |= {"<estimator>": "exact", "<quadrant>": "neutral"}
    examples |= {"<predictor>": "surprisal", "<digit>": "3"}
    assert examples.keys() == PLACEHOLDERS.keys()
    concrete = []
    for metric in METRICS:
        key = metric.key
        for placeholder, example in examples.items():
            key = key.replace(placeholder, example)
        assert find(key) == metric, "two declarations cover one key"
        assert re.fullmatch(r"[A-Za-z0-9_./ -]+", key), "MLflow refuses other characters, @ among them"
        concrete.append(key)
    assert len(set(concrete)) == len(METRICS)


def test_every_declaration_is_complete() -> None:
    for metric in METRICS:
        assert metric.unit and metric.meaning and metric.reduction in ("mean", "max", "sum", "last")
        assert "|" not in metric.meaning + metric.unit, "it would break the Markdown table"


def test_glossary_has_one_row_per_metric() -> None:
    rows = [line for line in glossary_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS)
    assert "| `policy/entropy` | nats | mean |" in glossary_markdown()


def test_the_file_in_a_run_folder_has_what_the_table_has() -> None:
    rows = {row["name"]: row for row in json.loads(glossary_json())}
    assert list(rows) == [metric.key for metric in METRICS]
    assert rows["eval/<suite>/pass_at_<k>"]["range"] == [0.0, 1.0] and rows["policy/loss"]["range"] == [None, None]
    assert rows["policy/entropy"]["range"] == [0.0, None]


def test_ranges_and_directions_are_of_declared_metrics() -> None:
    keys, units = {metric.key for metric in METRICS}, {metric.unit for metric in METRICS}
    names = {key.rpartition("/")[2].removeprefix("<suite>_") for key in keys}
    assert set(RANGES) <= keys | units and set(BETTER) <= names | units
    assert {metric.better for metric in METRICS} == {"higher", "lower", None}
    assert all(metric.range == ANY for metric in METRICS if "delta" in metric.key), "a change has a sign"


def test_no_definition_leans_on_its_neighbour() -> None:
    # A report shows some of them only.
    assert not [metric.key for metric in METRICS if re.search("(^|: )the same", metric.meaning)]


def test_module_prints_the_glossary_without_importing_torch() -> None:
    code = (
        "import sys, runpy; runpy.run_module('trainer.metrics.table', run_name='__main__');"
        " assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == glossary_markdown()
