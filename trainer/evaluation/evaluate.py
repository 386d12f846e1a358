"""Held-out evaluation: avg@n, pass@k, maj@k, diversity, calibration and support, suite by suite.

Responses come from a function that is passed in, so this file knows no engine; it must not train or log.

**RNG.** The sampling seed of a suite depends on the suite's name and ``EvaluationConfig.seed`` only, not on the run's
seed or step. So every run and every step answers the same problems with the same RNG stream, and a difference between
two of them is a paired difference. A fresh stream for a final check is ``evaluation.seed=1``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.contract.seeds import derive_seed
from trainer.contract.settings import ConfigError, Range, Seed, nearest, require
from trainer.metrics.calibration import ReliabilityPoint, calibration_metrics
from trainer.metrics.diversity import diversity_metrics
from trainer.metrics.majority import majority_at_k
from trainer.metrics.passk import avg_at_n, pass_at_k
from trainer.metrics.rollout import failure_metrics, unverifiable_frac
from trainer.metrics.support import support
from trainer.tasks.base import verify_all

if TYPE_CHECKING:
    from trainer.batch.types import Prompt, Rollout
    from trainer.tasks.base import Task

COLDEST = 0.01
"""Lowest temperature but 0 that vLLM samples at."""

SAMPLING = ("samples", "temperature", "top_p")
"""What a suite may have of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How often and how thoroughly a run is examined. Part of its identity: it moves the curves that are compared."""

    every: int = 20
    """Steps between evaluations; 0 switches evaluation off altogether."""
    samples: Annotated[int, Range(1, 65_536)] = 16
    """Responses per problem, n of avg@n and maj@n."""
    prompts: int = 64
    """Problems per suite: the first ones, so that a smaller number is a subset of a larger."""
    temperature: Annotated[float, Range(0, 100)] = 1.0
    """Sampling temperature; 0 is greedy. Calibration by probability speaks of the model itself at 1 and at 0."""
    top_p: Annotated[float, Range(1e-6, 1)] = 1.0
    """Tokens are drawn from the most likely ones whose probabilities add up to this; 1: from all."""
    suite_sampling: Mapping[str, dict[str, float]] = field(default_factory=dict)
    """Suites sampled in a way of their own: ``{aime24: {samples: 32, temperature: 0.6, top_p: 0.95}}``. The ks above a
    suite's samples are left out there."""
    max_tokens: int | None = None
    """Longest response; None is the rollout's."""
    ks: tuple[int, ...] = (1, 2, 4, 8, 16)
    """The k of pass@k and maj@k, none above ``samples``."""
    suites: tuple[str, ...] = ()
    """Suites of the task to use; empty: all it has."""
    seed: Seed = 0
    """RNG stream, shared by all runs and steps."""

    def __post_init__(self) -> None:
        for name in ("ks", "suites"):  # YAML and JSON know lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require(self.every >= 0, "evaluation.every", self.every, "give a number of steps, or 0 for no evaluation")
        require(self.samples >= 1, "evaluation.samples", self.samples, "at least 1 response per problem is needed")
        require(self.prompts >= 1, "evaluation.prompts", self.prompts, "at least 1 problem per suite is needed")
        hot, once = self.temperature >= COLDEST, self.samples == 1
        remedy = f"give {COLDEST} or more, or 0 for greedy responses"
        require(hot or self.temperature == 0, "evaluation.temperature", self.temperature, remedy)
        require(0 < self.top_p <= 1, "evaluation.top_p", self.top_p, "give a probability above 0, 1 for all tokens")
        remedy = "greedy responses are all alike, so it needs evaluation.samples=1 and evaluation.ks=[1]"
        require(hot or once, "evaluation.temperature", self.temperature, remedy)
        positive = self.max_tokens is None or self.max_tokens >= 1
        require(positive, "evaluation.max_tokens", self.max_tokens, "give at least 1 or null")
        most = max([self.samples, *(int(overrides.get("samples", 1)) for overrides in self.suite_sampling.values())])
        fits = bool(self.ks) and all(1 <= k <= most for k in self.ks)
        require(fits, "evaluation.ks", self.ks, f"every k lies between 1 and evaluation.samples={most}")
        legal = all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in self.suites)
        once = len(set(self.suites)) == len(self.suites)
        require(legal and once, "evaluation.suites", self.suites, "name each suite once")
        for suite in self.suite_sampling:
            self.of(suite)

    def of(self, suite: str) -> EvaluationConfig:
        """The settings for one suite, with its own sampling; raises :class:`ConfigError` for one that cannot be."""
        overrides, where = self.suite_sampling.get(suite, {}), f"evaluation.suite_sampling.{suite}"
        for name, value in overrides.items():
            require(name in SAMPLING, f"{where}.{name}", value, nearest(name, SAMPLING))
        samples = overrides.get("samples", self.samples)
        require(samples >= 1 and samples == int(samples), f"{where}.samples", samples, "give a whole number from 1 on")
        ks = tuple(k for k in self.ks if k <= samples) or (int(samples),)
        try:
            changed: dict[str, Any] = overrides | {
                "samples": int(samples),
                "ks": ks,
                "suites": (suite,),
                "suite_sampling": {},
            }
            return replace(self, **changed)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error

    def due(self, step: int, steps: int) -> bool:
        """Whether to evaluate after ``step`` of ``steps``: before training (0), every ``every``, and at the end."""
        return self.every > 0 and (step % self.every == 0 or step == steps)


class Generate(Protocol):
    """Samples unverified rollouts, ``samples`` for each prompt, ``group`` the index in ``prompts``.

    The noise of sample s of a prompt must depend on (seed, prompt.id, s) only, not on what else is in the call.
    """

    def __call__(
        self, prompts: list[Prompt], *, samples: int, temperature: float, top_p: float, max_tokens: int, seed: int
    ) -> list[Rollout]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one evaluation found."""

    metrics: dict[str, float] = field(default_factory=dict)
    """``eval/<suite>/...`` and ``support/<suite>_...``; undefined ones are absent."""
    samples: list[Rollout] = field(default_factory=list)
    """Verified rollouts for the table of samples: the first response to the first few problems of each suite."""
    reliability: dict[str, dict[str, list[ReliabilityPoint]]] = field(default_factory=dict)
    """Suite -> confidence (``logprob``, ``majority``) -> points of its reliability diagram."""
    solved: dict[str, list[int]] = field(default_factory=dict)
    """Suite -> correct answers per problem. That of step 0 is the ``base_counts`` of later ones; JSON-able."""


def evaluate(
    generate: Generate,
    task: Task,
    config: EvaluationConfig,
    *,
    step: int,
    max_tokens: int,
    base_counts: Mapping[str, Sequence[int]] | None = None,
    vocabulary: int | None = None,
    num_samples: int = 4,
) -> Evaluation:
    """Examine the policy behind ``generate`` on the suites of ``task``.

    ``max_tokens`` is the rollout's, used unless the configuration has its own. ``base_counts`` is ``solved`` of the
    base model's evaluation with the same configuration; with it come the support metrics. ``vocabulary`` enables EAD.
    ``num_samples`` responses per suite are kept for reading. Raises ValueError for a suite the task lacks or that is
    empty, and for a generator that returns another number of rollouts.
    """
    metrics: dict[str, float] = {}
    samples: list[Rollout] = []
    reliability: dict[str, dict[str, list[ReliabilityPoint]]] = {}
    solved: dict[str, list[int]] = {}
    for suite, prompts in chosen_suites(task.suites(), config).items():
        suite_config = config.of(suite)
        rollouts = _sample(generate, task, suite, prompts, suite_config, step, config.max_tokens or max_tokens)
        counts = solve_counts(rollouts, len(prompts))
        values, reliability[suite] = suite_metrics(rollouts, counts, suite_config, vocabulary)
        metrics |= {f"eval/{suite}/{name}": value for name, value in values.items()}
        if base_counts is not None and suite in base_counts:
            change = support(base_counts[suite], counts).metrics()
            metrics |= {f"support/{suite}_{name}": value for name, value in change.items()}
        solved[suite] = counts.tolist()
        samples += _first_of_each(rollouts, num_samples)
    return Evaluation(metrics=metrics, samples=samples, reliability=reliability, solved=solved)


def solve_counts(rollouts: Sequence[Rollout], num_prompts: int) -> NDArray[np.int64]:
    """Correct answers per problem [P]; ``group`` is the problem's index."""
    groups = np.array([rollout.group for rollout in rollouts], dtype=np.int64)
    correct = np.array([rollout.is_correct for rollout in rollouts], dtype=np.float64)
    return np.bincount(groups, weights=correct, minlength=num_prompts).astype(np.int64)


def suite_metrics(
    rollouts: Sequence[Rollout], counts: NDArray[np.int64], config: EvaluationConfig, vocabulary: int | None = None
) -> tuple[dict[str, float], dict[str, list[ReliabilityPoint]]]:
    """Metrics of one suite by bare name, and its reliability points. ``counts`` [P] as from :func:`solve_counts`."""
    n = config.samples
    scores = {f"pass_at_{k}": pass_at_k(counts, n, k) for k in config.ks}
    votes = _votes(rollouts)
    scores |= {f"maj_at_{k}": _majority(votes, k) for k in (*config.ks, n)} | {f"avg_at_{n}": avg_at_n(counts, n)}
    metrics = {name: float(score.mean()) for name, score in scores.items()}
    if len(counts) > 1:
        metrics |= {f"{name}_se": standard_error(score) for name, score in scores.items()}
    metrics["length_mean"] = sum(len(r.completion_ids) - r.num_context for r in rollouts) / len(rollouts)
    metrics |= _token_entropy(rollouts)
    metrics["truncated_frac"] = sum(r.finish_reason == "length" for r in rollouts) / len(rollouts)
    metrics["unverifiable_frac"] = unverifiable_frac(rollouts)
    metrics |= failure_metrics(rollouts)
    calibration, points = calibration_metrics(rollouts)
    return metrics | diversity_metrics(rollouts, vocabulary=vocabulary) | calibration, points


def _token_entropy(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean entropy of the distributions that tokens were sampled from, nats; nothing where the engine does not say."""
    per_rollout = [r.sampler_entropies[r.num_context :] for r in rollouts if r.sampler_entropies is not None]
    values = [value for entropies in per_rollout for value in entropies]
    return {"token_entropy": math.fsum(values) / len(values)} if values else {}


def standard_error(scores: NDArray[np.float64]) -> float:
    """Standard error of the mean of [P] scores over problems drawn from many: s / sqrt(P), s with ddof 1, P >= 2."""
    return float(scores.std(ddof=1) / np.sqrt(len(scores)))


def _votes(rollouts: Sequence[Rollout]) -> list[tuple[list[str | None], list[bool]]]:
    """Answers to each problem [P], and which of them were correct."""
    votes: dict[int, tuple[list[str | None], list[bool]]] = {}
    for rollout in rollouts:
        answers, correct = votes.setdefault(rollout.group, ([], []))
        answers.append(None if rollout.verdict is None else rollout.verdict.answer)
        correct.append(rollout.is_correct)
    return [votes[group] for group in sorted(votes)]


def _majority(votes: Sequence[tuple[list[str | None], list[bool]]], k: int) -> NDArray[np.float64]:
    """maj@k of each problem [P]."""
    return np.array([majority_at_k(answers, correct, k) for answers, correct in votes])


def chosen_suites(suites: Mapping[str, list[Prompt]], config: EvaluationConfig) -> dict[str, list[Prompt]]:
    """The suites asked for, each cut to its first ``config.prompts`` problems."""
    names = config.suites or tuple(suites)
    for name in config.suite_sampling:
        if name not in suites:
            raise ConfigError(f"evaluation.suite_sampling names {name!r}, not a suite: {nearest(name, suites)}")
    for name in names:
        if name not in suites:
            raise ConfigError(f"evaluation.suites names {name!r}, not a suite of the task: {nearest(name, suites)}")
        if not suites[name]:
            raise ConfigError(f"evaluation suite {name!r} of the task is empty: leave it out or enlarge it")
    return {name: suites[name][: config.prompts] for name in names}


def _sample(
    generate: Generate,
    task: Task,
    suite: str,
    prompts: list[Prompt],
    config: EvaluationConfig,
    step: int,
    max_tokens: int,
) -> list[Rollout]:
    """Sampled and verified: ``samples`` rollouts of each prompt."""
    seed = derive_seed("evaluation", config.seed, suite)
    rollouts = generate(
        prompts,
        samples=config.samples,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=max_tokens,
        seed=seed,
    )
    groups = np.array([rollout.group for rollout in rollouts], dtype=np.int64)
    received = np.bincount(groups, minlength=len(prompts))
    if len(received) != len(prompts) or np.any(received != config.samples):
        raise ValueError(
            f"evaluation of {suite!r} at step {step} got {len(rollouts)} rollouts, not {config.samples} for each of"
            f" {len(prompts)} prompts; check the generator"
        )
    verdicts = verify_all(task, [(rollout.prompt, rollout.text) for rollout in rollouts])
    return [replace(rollout, verdict=verdict) for rollout, verdict in zip(rollouts, verdicts, strict=True)]


def _first_of_each(rollouts: Sequence[Rollout], number: int) -> list[Rollout]:
    """The first response to each of the first ``number`` problems: the same ones at every step, to be read in a row."""
    first: dict[int, Rollout] = {}
    for rollout in rollouts:
        first.setdefault(rollout.group, rollout)
    return [first[group] for group in sorted(first)[:number]]
