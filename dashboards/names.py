"""What each metric is called on a page: label, unit and one sentence of meaning.

Called by figures, tables and the glossary of the report. Must not read any run: the *truth* about what a metric is
lives with the trainer that computes it; a key unknown here is shown under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ENTROPY = "policy/entropy"
REWARD = "rollout/reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """How one metric key is presented."""

    key: str
    label: str
    unit: str
    """Unit in words ("nats", "fraction"); empty for a plain number."""
    meaning: str

    @property
    def axis(self) -> str:
        """Axis title: label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_TABLE: dict[str, tuple[str, str, str]] = {
    ENTROPY: (
        "Policy entropy",
        "nats per token",
        "Shannon entropy of the next-token distribution over the full vocabulary, exact, mean over all response "
        "tokens, at the weights and temperature that sampled them.",
    ),
    "policy/entropy_t1": (
        "Policy entropy at temperature 1",
        "nats per token",
        "The same of the model's own distribution, whatever the temperature of the rollouts.",
    ),
    "policy/entropy_positive": (
        "Entropy, positive advantage",
        "nats per token",
        "Policy entropy over the tokens of responses with a positive advantage.",
    ),
    "policy/entropy_negative": (
        "Entropy, negative advantage",
        "nats per token",
        "Policy entropy over the tokens of responses with a negative advantage.",
    ),
    "policy/surprisal": (
        "Surprisal",
        "nats per token",
        "Mean negative log-probability of the sampled tokens: a sampled estimate, not the entropy itself.",
    ),
    "policy/kl_old": (
        "KL to the sampling policy",
        "nats per token",
        "Divergence between the policy that sampled the responses and the policy after its updates.",
    ),
    "policy/clip_frac_low": (
        "Clipped below",
        "fraction of tokens",
        "Response tokens whose gradient the lower clip removed: negative advantage, ratio below the threshold.",
    ),
    "policy/clip_frac_high": (
        "Clipped above",
        "fraction of tokens",
        "Response tokens whose gradient the upper clip removed: positive advantage, ratio above the threshold.",
    ),
    "policy/clip_frac_dual": (
        "Clipped by the dual clip",
        "fraction of tokens",
        "Response tokens whose gradient the dual clip removed: negative advantage, ratio above the bound.",
    ),
    "policy/grad_norm": ("Gradient norm", "", "Norm of the gradient before it is capped."),
    "entropy/delta_measured": (
        "Measured entropy change",
        "nats per token",
        "Entropy after the update minus entropy before it, on the same contexts.",
    ),
    REWARD: ("Training reward", "mean per response", "Mean verified reward of the sampled training responses."),
    "rollout/length_mean": ("Response length", "tokens", "Mean number of sampled tokens in a response."),
    "rollout/truncated_frac": (
        "Truncated responses",
        "fraction",
        "Responses that reached the token budget before an end token.",
    ),
    "rollout/zero_std_frac_all_right": (
        "All-right groups",
        "fraction of groups",
        "Prompts whose whole group was right: they carry no advantage.",
    ),
    "rollout/zero_std_frac_all_wrong": (
        "All-wrong groups",
        "fraction of groups",
        "Prompts whose whole group was wrong: they carry no advantage.",
    ),
    "diversity/self_bleu": (
        "Self-BLEU",
        "0 to 1",
        "How much the responses to one prompt repeat each other; higher means less diverse.",
    ),
    "diversity/distinct_answers": (
        "Distinct answers",
        "per prompt",
        "Different final answers among the responses to one prompt.",
    ),
    "diversity/distinct_correct": (
        "Distinct correct solutions",
        "per prompt",
        "Different correct solutions among the responses to one prompt.",
    ),
    "diversity/answer_entropy": (
        "Answer entropy",
        "nats",
        "Entropy of the distribution of final answers within a prompt's group.",
    ),
    "calibration/ece": (
        "Calibration error",
        "ECE, 0 to 1",
        "Expected calibration error: gap between stated confidence (exponential of the mean token log-probability) "
        "and accuracy, averaged over confidence bins.",
    ),
    "calibration/brier": ("Brier score", "0 to 1", "Mean squared gap between confidence and correctness."),
    "calibration/auroc": (
        "AUROC of confidence",
        "0 to 1",
        "Chance that a right response has higher confidence than a wrong one.",
    ),
    "calibration/ece_majority": (
        "Calibration error, majority",
        "ECE, 0 to 1",
        "Expected calibration error with the frequency of the majority answer as confidence.",
    ),
    "engine/logprob_gap_max": (
        "Log-prob gap, maximum",
        "nats",
        "Largest difference between sampler and trainer log-probability of one token after a weight sync.",
    ),
    "engine/logprob_gap_mean": (
        "Log-prob gap, mean",
        "nats",
        "Mean absolute difference between sampler and trainer log-probabilities after a weight sync.",
    ),
    "time/step_s": ("Step time", "seconds", "Wall time of one training step."),
    "throughput/tokens_per_s": ("Throughput", "tokens per second", "Sampled tokens over wall time of the step."),
}

_EVALUATION = re.compile(r"^eval/(?P<suite>[^/]+)/(?P<kind>avg|pass|maj)_at_(?P<k>\d+)$")
_EVALUATION_MEANING = {
    "avg": "mean accuracy over {k} samples per problem of the {suite} suite.",
    "pass": "chance that at least one of {k} samples solves a problem of the {suite} suite (unbiased estimate).",
    "maj": "accuracy of the majority answer among {k} samples per problem of the {suite} suite.",
}
_SUPPORT = {
    "srr": ("Support kept", "Of the problems the base model solved, those the trained model still solves."),
    "ndr": ("Support found", "Of the problems the trained model solves, those the base model did not."),
}
_SUITES = {"heldout": "held-out", "held_out": "held-out", "ood": "out-of-domain", "out_of_domain": "out-of-domain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationKey:
    """The parts of ``eval/<suite>/<kind>_at_<k>``."""

    key: str
    suite: str
    kind: str
    k: int


def evaluation_keys(keys: Iterable[str]) -> list[EvaluationKey]:
    """Every ``eval/<suite>/<kind>_at_<k>`` among ``keys``, held-out suites first, then by suite, kind and k."""
    found = [
        EvaluationKey(key=key, suite=match["suite"], kind=match["kind"], k=int(match["k"]))
        for key in keys
        if (match := _EVALUATION.match(key))
    ]
    return sorted(found, key=lambda item: (not item.suite.startswith("held"), item.suite, item.kind, item.k))


def suite_name(suite: str) -> str:
    """A suite's name in words."""
    return _SUITES.get(suite, suite.replace("_", " "))


def describe(key: str) -> MetricName:
    """Label, unit and meaning of ``key``; an unknown key is its own label."""
    if key in _TABLE:
        label, unit, meaning = _TABLE[key]
        return MetricName(key=key, label=label, unit=unit, meaning=meaning)
    if evaluation := evaluation_keys([key]):
        item, suite = evaluation[0], suite_name(evaluation[0].suite)
        meaning = _EVALUATION_MEANING[item.kind].format(k=item.k, suite=suite)
        label = f"{item.kind}@{item.k}, {suite}"
        return MetricName(key=key, label=label, unit="fraction of problems", meaning=meaning[0].upper() + meaning[1:])
    if match := re.match(r"^diversity/distinct_(\d)$", key):
        words = f"{match[1]}-grams" if match[1] != "1" else "tokens"
        meaning = f"Different {words} divided by all {words} among the responses to one prompt; lower is less diverse."
        return MetricName(key=key, label=f"Distinct-{match[1]}", unit="fraction", meaning=meaning)
    return _relative(key) or MetricName(key=key, label=key, unit="", meaning="")


def _relative(key: str) -> MetricName | None:
    """Names of families: a suite's diversity and calibration, support against the base model, entropy accounting."""
    if match := re.match(r"^eval/([^/]+)/(\w+)$", key):
        suite = suite_name(match[1])
        for group in ("diversity", "calibration"):
            base = describe(f"{group}/{match[2]}")
            if base.meaning:
                meaning = f"{base.meaning} Measured on the {suite} suite."
                return MetricName(key=key, label=f"{base.label}, {suite}", unit=base.unit, meaning=meaning)
    if match := re.match(r"^support/(\w+)_(srr|ndr)$", key):
        label, meaning = _SUPPORT[match[2]]
        label = f"{label}, {suite_name(match[1])}"
        return MetricName(key=key, label=label, unit="fraction of problems", meaning=meaning)
    if match := re.match(r"^entropy/corr_(pearson|spearman)_(\w+)$", key):
        kind, estimator = match[1].capitalize(), match[2].replace("_", " ")
        meaning = f"{kind} correlation over tokens of the measured entropy change with the {estimator} estimate."
        return MetricName(key=key, label=f"Prediction by {estimator}", unit="correlation", meaning=meaning)
    return None


def headline_keys(keys: Iterable[str]) -> list[str]:
    """The columns of the level table, in order: entropy, reward, widest avg@k and pass@k of the first suite,
    distinct-4, calibration error; those that were logged."""
    present = set(keys)
    chosen = [key for key in (ENTROPY, REWARD) if key in present]
    evaluations = evaluation_keys(present)
    for kind in ("avg", "pass"):
        of_kind = [item for item in evaluations if item.kind == kind]
        first = [item for item in of_kind if item.suite == of_kind[0].suite]
        chosen += [first[-1].key] if first else []
    return chosen + [key for key in ("diversity/distinct_4", "calibration/ece") if key in present]


_ALSO_COMPARED = (
    "diversity/self_bleu",
    "diversity/distinct_answers",
    "diversity/distinct_correct",
    "diversity/answer_entropy",
    "rollout/length_mean",
    "policy/clip_frac_high",
    "policy/clip_frac_low",
)


def compared_keys(keys: Iterable[str]) -> list[str]:
    """The metrics tested beside the hypothesis: the headline ones, every suite, diversity, clipping, length."""
    present = set(keys)
    chosen = headline_keys(present)
    evaluations = evaluation_keys(present)
    for suite in dict.fromkeys(item.suite for item in evaluations):
        for kind in ("avg", "pass"):
            widest = [item.key for item in evaluations if item.suite == suite and item.kind == kind][-1:]
            chosen += [key for key in widest if key not in chosen]
    return chosen + [key for key in _ALSO_COMPARED if key in present]
