"""Which metrics a run logs, by its configuration: what a search may look at."""

from __future__ import annotations

import pytest
from runs import run_config

from trainer.setup.build import build_run
from trainer.setup.checks import problems
from trainer.setup.metric_checks import why_not_logged

CONTROLLED = {
    "controller.skywork._target_": "trainer.objective.controllers.skywork.Skywork",
    "regularizer.entropy_bonus._target_": "trainer.objective.regularizers.entropy_bonus.EntropyBonus",
}


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("policy/entropy", None),
        ("eval/heldout/pass_at_2", None),
        ("eval/ood/avg_at_2", None),
        ("eval/heldout/ece", None),
        ("support/ood_srr", None),
        ("controller/skywork", None),
        ("entropy/delta_measured", None),
        ("policy/entrop", "did you mean 'policy/entropy'?"),
        ("eval/heldout/pass_at_4", "evaluation.ks"),
        ("eval/heldout/avg_at_4", "avg_at_2"),
        ("eval/math/avg_at_2", "not evaluated"),
        ("support/math_srr", "not evaluated"),
        ("controller/aer", "skywork"),
        ("throughput/tokens_per_s", "a timing"),
        ("eval/heldout/avg_at_2_se", None),
        ("eval/heldout/pass_at_4_se", "evaluation.ks"),
        ("eval/heldout/maj_at_1", None),
        ("eval/heldout/maj_at_4_se", "evaluation.ks"),
        ("eval/heldout/avg_at_4_se", "avg_at_2_se"),
    ],
)
def test_what_a_small_run_logs(key: str, word: str | None) -> None:
    why = why_not_logged(key, build_run(run_config(CONTROLLED)))
    assert why is None if word is None else word in (why or "")


def test_what_is_switched_off_is_not_logged() -> None:
    run = build_run(run_config({"evaluation.every": 0, "accounting.every": 0}))
    assert "evaluation.every" in (why_not_logged("eval/heldout/pass_at_1", run) or "")
    assert "accounting.every" in (why_not_logged("entropy/delta_measured", run) or "")


def test_the_check_speaks_of_a_search() -> None:
    search = {"objectives": [{"metric": "policy/entropy"}, {"metric": "eval/x/avg_at_2"}], "prune_metric": "a/b"}
    sentences = [problem.message for problem in problems(run_config() | {"search": search}) if problem.fatal]
    assert len(sentences) == 2
    assert sentences[0].startswith("search.objectives[1].metric='eval/x/avg_at_2' cannot be used: ")
    assert sentences[1].startswith("search.prune_metric='a/b' cannot be used: ")
