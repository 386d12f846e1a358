"""Evaluation end to end on a scripted generator: numbers by hand, noise that pairs, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from trainer.batch.types import Prompt, Rollout, Verdict
from trainer.contract.component_source import component_defaults
from trainer.contract.paths import ROOT
from trainer.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from trainer.metrics.table import check


class Sums:
    """A task whose correct answer is the prompt's text; the answer ``-`` cannot be read."""

    def train_prompts(self) -> list[Prompt]:
        return []

    def suites(self) -> dict[str, list[Prompt]]:
        heldout = [Prompt(id=f"h{i}", text=str(i)) for i in range(4)]
        return {"heldout": heldout, "ood": [Prompt(id="o0", text="9")]}

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        right = text == prompt.text
        return Verdict(
            reward=float(right),
            answer=None if text == "-" else text,
            solution=text if right else None,
            comparable=text != "6",
        )


class Script:
    """Returns scripted texts and remembers how it was called."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = texts
        self.calls: list[dict[str, object]] = []

    def __call__(
        self, prompts: list[Prompt], *, samples: int, temperature: float, top_p: float, max_tokens: int, seed: int
    ) -> list[Rollout]:
        self.calls.append({"ids": [prompt.id for prompt in prompts], "samples": samples, "temperature": temperature})
        self.calls[-1] |= {"top_p": top_p, "max_tokens": max_tokens, "seed": seed}
        return [
            Rollout(
                prompt=prompt,
                prompt_ids=(1,),
                completion_ids=(ord(text), 0),
                sampler_logprobs=(math.log(0.25), 0.0),  # geometric mean 1/2
                finish_reason="stop",
                text=text,
                group=group,
                weight_version=3,
            )
            for group, prompt in enumerate(prompts)
            for text in self.texts[prompt.id][:samples]
        ]


TEXTS = {"h0": list("0077"), "h1": list("1---"), "h2": list("5556"), "h3": list("3333"), "o0": list("8888")}
CONFIG = EvaluationConfig(samples=4, prompts=4, ks=(1, 2, 4))


def run(config: EvaluationConfig = CONFIG, **keywords: object) -> tuple[Evaluation, Script]:
    script = Script(TEXTS)
    return evaluate(script, Sums(), config, step=20, max_tokens=40, **keywords), script  # type: ignore[arg-type]


def test_numbers_by_hand() -> None:
    found, _ = run()
    check(found.metrics)
    metrics = {key.removeprefix("eval/heldout/"): value for key, value in found.metrics.items() if "heldout" in key}
    # Correct answers: 2, 1, 0, 4 of 4.
    assert found.solved == {"heldout": [2, 1, 0, 4], "ood": [0]}
    assert metrics["avg_at_4"] == metrics["pass_at_1"] == pytest.approx(7 / 16)
    # pass@2 = 1 - C(4-c,2)/6: c=2 -> 5/6, c=1 -> 1/2, 0, 1. pass@4: 1, 1, 0, 1.
    assert metrics["pass_at_2"] == pytest.approx((5 / 6 + 1 / 2 + 0 + 1) / 4)
    assert metrics["pass_at_4"] == 0.75
    # maj@4: tie 0/7 -> 1/2; only vote right -> 1; 5 wins -> 0; 1.
    assert metrics["maj_at_4"] == pytest.approx(2.5 / 4)
    # maj@2, pairs of four: 0 0 7 7 -> 1 of 6 right, 1 wrong, 4 ties: 3/6. 1 - - -: 3 of 6 pairs vote, all right.
    assert metrics["maj_at_2"] == pytest.approx((1 / 2 + 1 / 2 + 0 + 1) / 4)
    assert metrics["maj_at_1"] == pytest.approx(metrics["avg_at_4"])
    # Standard errors over the 4 problems, sd / 2. Accuracies 1/2, 1/4, 0, 1: deviations 1/16, -3/16, -7/16, 9/16, so
    # sd^2 = (1 + 9 + 49 + 81) / 256 / 3. pass@4 1, 1, 0, 1: sd^2 = (3/16 + 9/16) / 3 = 1/4. maj 1/2, 1, 0, 1: 11/48.
    assert metrics["avg_at_4_se"] == metrics["pass_at_1_se"] == pytest.approx(math.sqrt(140 / 768) / 2)
    assert metrics["pass_at_4_se"] == pytest.approx(1 / 4)
    assert metrics["maj_at_4_se"] == pytest.approx(math.sqrt(11 / 48) / 2)
    assert not [key for key in found.metrics if key.startswith("eval/ood/") and key.endswith("_se")], "one problem"
    # Confidence (a) is 1/2 everywhere: |7/16 - 1/2|, and (1/2)^2.
    assert metrics["ece"] == pytest.approx(1 / 16)
    assert metrics["brier"] == pytest.approx(0.25)
    assert metrics["auroc"] == 0.5
    # Agreement 1/2: 0 0 7 7 (2 right); 1/4: 1 and 6 (1 right); 0: three unreadable; 3/4: 5 5 5; 1: 3 3 3 3 (4 right).
    # Bins: 0 gap 0; 1/4 gap 1/4 (2); 1/2 gap 0; 3/4 gap 3/4 (3); 1 gap 0 -> (2/4 + 9/4) / 16.
    assert metrics["ece_majority"] == pytest.approx(2.75 / 16)
    # Answers {0,7}, {1}, {5,6}, {3}: 6/4. Solutions 1, 1, 0, 1.
    assert metrics["distinct_answers"] == 1.5
    assert metrics["distinct_correct"] == 0.75
    assert metrics["unverifiable_frac"] == 1 / 16, "the one 6"
    assert metrics["length_mean"] == 2.0 and metrics["truncated_frac"] == 0.0
    assert "eval/ood/auroc" not in found.metrics, "all incorrect: undefined"
    assert found.reliability["heldout"]["logprob"][0].count == 16


def test_noise_depends_on_the_suite_and_the_configured_stream_only() -> None:
    _, first = run()
    _, later = run(replace(CONFIG, every=7))
    seeds = [call["seed"] for call in first.calls]
    assert len(set(seeds)) == 2, "two suites, two streams"
    assert [call["seed"] for call in later.calls] == seeds
    fewer, other = run(replace(CONFIG, prompts=2))[1], run(replace(CONFIG, seed=1))[1]
    assert [call["seed"] for call in fewer.calls] == seeds, "a smaller evaluation is a part of the larger"
    assert fewer.calls[0]["ids"] == ["h0", "h1"]
    assert not set(seeds) & {call["seed"] for call in other.calls}


def test_budget_and_temperature_reach_the_generator() -> None:
    _, script = run(replace(CONFIG, temperature=0.6, suites=("ood",)))
    assert [(c["ids"], c["samples"], c["temperature"], c["max_tokens"]) for c in script.calls] == [(["o0"], 4, 0.6, 40)]
    assert run(replace(CONFIG, max_tokens=7))[1].calls[0]["max_tokens"] == 7


def test_a_suite_may_be_sampled_in_its_own_way() -> None:
    own = {"heldout": {"samples": 2.0, "temperature": 0.6, "top_p": 0.95}, "ood": {"samples": 1, "temperature": 0}}
    found, script = run(replace(CONFIG, suite_sampling=own))
    check(found.metrics)
    asked = [(c["samples"], c["temperature"], c["top_p"]) for c in script.calls]
    assert asked == [(2, 0.6, 0.95), (1, 0, 1.0)]
    # The first two of 0077, 1---, 5556, 3333: 2, 1, 0, 2 correct; k = 4 is more than there are.
    assert found.metrics["eval/heldout/avg_at_2"] == 5 / 8 and "eval/heldout/pass_at_4" not in found.metrics
    assert found.metrics["eval/ood/pass_at_1"] == found.metrics["eval/ood/maj_at_1"] == 0
    assert not any(key.startswith("eval/ood/") and "majority" in key for key in found.metrics), "nothing to agree with"


def test_the_ks_reach_as_far_as_the_suite_with_most_samples() -> None:
    config = EvaluationConfig(samples=1, ks=(1, 32), suite_sampling={"aime24": {"samples": 32}})
    assert (config.of("aime24").ks, config.of("gsm8k").ks) == ((1, 32), (1,))


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"top": 0.9}, "suite_sampling.ood.top=0.9 cannot be used: did you mean 'top_p'"),
        ({"samples": 1.5}, "suite_sampling.ood.samples=1.5 cannot be used: give a whole number"),
        ({"temperature": -1.0}, "suite_sampling.ood: evaluation.temperature=-1.0 cannot be used"),
        ({"temperature": 0.0}, "suite_sampling.ood: evaluation.temperature=0.0 cannot be used: greedy responses"),
        ({"top_p": 0.0}, "suite_sampling.ood: evaluation.top_p=0.0 cannot be used"),
    ],
)
def test_a_suite_cannot_be_sampled_in_an_impossible_way(own: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"evaluation.{sentence}"):
        EvaluationConfig(suite_sampling={"ood": own})


def test_sampling_of_a_suite_that_the_task_lacks_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"suite_sampling names 'oood', not a suite: did you mean 'ood'"):
        run(replace(CONFIG, suite_sampling={"oood": {"temperature": 0.6}}))


def test_support_needs_the_base_counts() -> None:
    assert not [key for key in run()[0].metrics if key.startswith("support/")]
    # Base solved problems 0 and 2; now 0, 1, 3: P = 1, E = 2, S = 1, O = 0.
    found, _ = run(base_counts={"heldout": [1, 0, 3, 0]})
    check(found.metrics)
    ratios = [
        found.metrics[f"support/heldout_{name}"] for name in ("srr", "ndr", "nscr", "preserved", "expanded", "lost")
    ]
    assert ratios == pytest.approx([1 / 2, 2 / 3, 1 / 4, 1, 2, 1])
    assert "support/ood_srr" not in found.metrics


def test_samples_are_the_first_of_the_first_problems_and_verified() -> None:
    found, _ = run(num_samples=2)
    assert [(r.prompt.id, r.text, r.reward) for r in found.samples] == [
        ("h0", "0", 1.0),
        ("h1", "1", 1.0),
        ("o0", "8", 0.0),
    ]


def test_evaluation_leaves_random_state_alone() -> None:
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


def test_missing_suite_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'heldout'"):
        run(replace(CONFIG, suites=("held_out",)))


def test_short_generator_is_noticed() -> None:
    script = Script(TEXTS | {"h2": ["5"]})
    with pytest.raises(ValueError, match="'heldout' at step 20 got 13 rollouts, not 4 for each of 4 prompts"):
        evaluate(script, Sums(), CONFIG, step=20, max_tokens=40)
    with pytest.raises(ValueError, match="got 0 rollouts"):
        evaluate(Script({prompt: [] for prompt in TEXTS}), Sums(), CONFIG, step=20, max_tokens=40)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("every", -1), ("samples", 0), ("prompts", 0), ("temperature", -0.1), ("temperature", 0.005), ("top_p", 0.0),
        ("top_p", 1.1), ("max_tokens", 0), ("ks", (1, 32)), ("ks", ()), ("ks", (0,)), ("suites", ("a", "a")),
        ("suites", ("a/b",)),
    ],
)  # fmt: skip
def test_bad_values_name_the_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"evaluation.{'ks' if key == 'samples' else key}|evaluation.samples"):
        EvaluationConfig(**{key: value})  # type: ignore[arg-type]


def test_lists_from_yaml_become_tuples() -> None:
    config = EvaluationConfig(ks=[1, 2], suites=["ood"])  # type: ignore[arg-type]
    assert (config.ks, config.suites) == ((1, 2), ("ood",))


def test_when_it_is_due() -> None:
    config = EvaluationConfig(every=20)
    assert [step for step in range(51) if config.due(step, 50)] == [0, 20, 40, 50]
    assert not any(EvaluationConfig(every=0).due(step, 50) for step in range(51))


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "evaluation").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_choice_builds_and_states_only_what_differs(path: object) -> None:
    from omegaconf import OmegaConf

    stated = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[arg-type]
    assert stated.pop("_target_") == "trainer.evaluation.evaluate.EvaluationConfig"
    defaults = component_defaults("trainer.evaluation.evaluate.EvaluationConfig")
    assert all(defaults[key] != value for key, value in stated.items())
    EvaluationConfig(**stated)
