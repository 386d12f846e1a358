"""Labels of metrics, and the lists of metrics that reports show.

Definitions, units and ranges come from ``metrics.json`` (:mod:`dashboards.sweep.glossary`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ENTROPY = "policy/entropy"
REWARD = "rollout/reward"
SAMPLED_REWARD = "rollout/generated_reward"

_LABELS = {
    ENTROPY: "Policy entropy",
    "policy/entropy_t1": "Policy entropy at temperature 1",
    "policy/renyi2_entropy": "Rényi-2 entropy",
    "policy/entropy_positive": "Entropy, positive advantage",
    "policy/entropy_negative": "Entropy, negative advantage",
    "policy/surprisal": "Surprisal",
    "policy/kl_old": "KL to the sampling policy",
    "policy/clip_frac_low": "Clipped below",
    "policy/clip_frac_high": "Clipped above",
    "policy/clip_frac_dual": "Clipped by the dual clip",
    "policy/grad_norm": "Gradient norm",
    "entropy/delta_measured": "Measured entropy change",
    "entropy/delta_predicted_covariance": "Entropy change by the covariance",
    "entropy/mutual_information": "Information on the prompt",
    REWARD: "Training reward",
    SAMPLED_REWARD: "Reward of all samples",
    "rollout/length_mean": "Response length",
    "rollout/truncated_frac": "Truncated responses",
    "rollout/unverifiable_frac": "Answers not comparable",
    "rollout/zero_std_frac_all_correct": "All-correct groups",
    "rollout/zero_std_frac_all_incorrect": "All-incorrect groups",
    "diversity/ngram": "N-gram diversity",
    "diversity/self_bleu": "Self-BLEU",
    "diversity/distinct_answers": "Distinct answers",
    "diversity/distinct_correct": "Distinct correct solutions",
    "diversity/answer_entropy": "Answer entropy",
    "calibration/ece": "Calibration error (ECE)",
    "calibration/brier": "Brier score",
    "calibration/auroc": "AUROC of confidence",
    "calibration/ece_majority": "Calibration error (ECE), agreement",
    "calibration/ece_stated": "Calibration error (ECE), stated",
    "calibration/brier_stated": "Brier score, stated confidence",
    "calibration/auroc_stated": "AUROC of stated confidence",
    "engine/logprob_gap_max": "Log-prob gap, maximum",
    "engine/logprob_gap_mean": "Log-prob gap, mean",
    "time/step_s": "Step time",
    "throughput/tokens_per_s": "Throughput",
}

_EVALUATION = re.compile(r"^eval/(?P<suite>[^/]+)/(?P<kind>avg|pass|maj)_at_(?P<k>\d+)$")
_SUPPORT = {"srr": "Support kept", "ndr": "Support found", "nscr": "Net support change"}
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
    matches = [
        EvaluationKey(key=key, suite=match["suite"], kind=match["kind"], k=int(match["k"]))
        for key in keys
        if (match := _EVALUATION.match(key))
    ]
    return sorted(matches, key=lambda item: (not item.suite.startswith("held"), item.suite, item.kind, item.k))


def suite_name(suite: str) -> str:
    """A suite's name in words."""
    return _SUITES.get(suite, suite.replace("_", " "))


def label_of(key: str) -> str:
    """The label of a metric; an unknown key is its own label."""
    if key in _LABELS:
        return _LABELS[key]
    if evaluation := evaluation_keys([key]):
        item = evaluation[0]
        return f"{item.kind}@{item.k}, {suite_name(item.suite)}"
    if match := re.match(r"^diversity/distinct_(\d)$", key):
        return f"Distinct-{match[1]}"
    return _family_label(key) or key


def _family_label(key: str) -> str | None:
    """Labels of families: a suite's diversity and calibration, support against the base model, entropy accounting."""
    if match := re.match(r"^eval/([^/]+)/token_entropy$", key):
        return f"Token entropy, {suite_name(match[1])}"
    if match := re.match(r"^eval/([^/]+)/(\w+)$", key):
        for group in ("diversity", "calibration"):
            base = f"{group}/{match[2]}"
            if label_of(base) != base:
                return f"{label_of(base)}, {suite_name(match[1])}"
    if match := re.match(r"^support/(\w+)_(srr|ndr|nscr)$", key):
        return f"{_SUPPORT[match[2]]}, {suite_name(match[1])}"
    if match := re.match(r"^entropy/corr_(?:pearson|spearman)_(\w+)$", key):
        return f"At the token's own position, {match[1].replace('_', ' ')}"
    if match := re.match(r"^entropy/delta_(positive|negative)_(likely|unlikely)$", key):
        return f"Change at the position, {match[1]}, {match[2]} tokens"
    if match := re.match(r"^ledger/(\w+)$", key):
        return f"Ledger, {match[1].replace('_', ' ')}"
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
