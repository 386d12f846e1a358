"""Task from any procedural data set of reasoning-gym, by name: problems are made here, nothing is downloaded.

Built by ``conf/task/reasoning_gym.yaml``; read by the loop and by evaluation. Problems and scores are reasoning-gym's
own; its scorer runs in processes beside the trainer, because it may take any time over an answer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import ConfigError, Range, Seed
from trainer.tasks.answers import Extract, canonical, extracted
from trainer.tasks.diversity import Selection, Subset, at_random, selection
from trainer.tasks.template import CHAT, PromptFormat, answering, asking, with_line_breaks
from trainer.tasks.verifier_pool import shared_pool
from trainer.tasks.verifiers.gym import dataset

TRIES = 20
"""Problems that are looked at for each one that is wanted: easy levels repeat themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningGymTask:
    """Reward 1.0 where reasoning-gym gives an extracted answer its full score, else 0.0 (or, with ``partial_credit``,
    the score). ``Verdict.answer`` is the answer in one spelling.
    """

    name: str = "chain_sum"
    """Data set of reasoning-gym."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings, which choose the level: ``{min_terms: 2, max_terms: 2}``."""
    num_prompts: Annotated[int, Range(1, 100_000)] = 512
    """Distinct training problems; subsets nest."""
    subset: Subset = "random"
    """See ``task=math``."""
    clusters: Annotated[int, Range(1, 100_000)] = 64
    pool_size: Annotated[int, Range(1, 100_000)] = 4096
    """Problems that a subset by clusters is chosen from, fewer where the level has no more; ``random`` needs none."""
    num_heldout: Annotated[int, Range(1, 10_000)] = 128
    """Problems of the same kind that are not trained on; suite ``heldout``."""
    problem_seed: Seed = 0
    """Fixes every problem; the seed of a run only orders them."""
    partial_credit: bool = False
    extract: Extract = "tags"
    """See ``task=math``."""
    answer_marker: str = "Answer:"
    prompt_template: str | None = None
    prompt_format: PromptFormat = "auto"
    system_prompt: str | None = None
    verify_seconds: Annotated[float, Range(0.1, 3600)] = 10.0
    """Longest time for one answer, before the scorer is killed and gives 0."""

    def __post_init__(self) -> None:
        if "{question}" not in self._template():
            raise ConfigError("task.prompt_template lacks {question}; put it where the question goes")

    def train_prompts(self) -> list[Prompt]:
        """Problems after the held-out ones."""
        at_random(self.selection())
        return self._prompts("train")

    def selection(self) -> Selection | None:
        """By ``subset``."""
        return selection(self.subset, self.num_prompts, self.clusters)

    def pool(self) -> list[Prompt]:
        """At most ``pool_size`` problems after the held-out ones."""
        return self._prompts("train")

    def suites(self) -> dict[str, list[Prompt]]:
        """``heldout``: the first distinct problems of the data set."""
        return {"heldout": self._prompts("heldout")}

    def notes(self) -> list[str]:
        """None: every problem is made here."""
        return []

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """See the class; never raises on any ``text``."""
        return self.verify_all([(prompt, text)])[0]

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """:meth:`verify` of each pair, in parallel."""
        answers = [extracted(text, self.extract, self.answer_marker) for _, text in pairs]
        answered = [number for number, answer in enumerate(answers) if answer]
        scorer = {"_target_": "trainer.tasks.verifiers.gym.Gym", "name": self.name, "settings": dict(self.settings)}
        pool = shared_pool({"gym": scorer | {"seed": self.problem_seed, "size": self._size()}}, self.verify_seconds)
        results = pool.scores([(str(answers[number]), pairs[number][0].data) for number in answered])
        scores = {number: score["gym"] for number, score in zip(answered, results, strict=True)}
        return [self._verdict(text, answers[number], scores.get(number, 0.0)) for number, (_, text) in enumerate(pairs)]

    def expert(self, prompt: Prompt) -> str | None:
        """The answer, as a response gives it."""
        return answering(str(prompt.data["answer"]), self.extract, self.answer_marker)

    def _verdict(self, text: str, answer: str | None, score: float | None) -> Verdict:
        full = score is not None and score >= 1.0
        reward = float(full) if not self.partial_credit else max(0.0, score or 0.0)
        spelling = canonical(answer) if answer else None
        solution = " ".join(text.split()) if full else None
        return Verdict(reward=reward, answer=spelling or None, solution=solution, failed=score is None)

    def _template(self) -> str:
        return asking(self.extract, self.answer_marker, self.prompt_template)

    def _size(self) -> int:
        return TRIES * (self.num_heldout + self._wanted())

    def _wanted(self) -> int:
        return self.num_prompts if self.subset == "random" else max(self.pool_size, self.num_prompts)

    def _prompts(self, suite: str) -> list[Prompt]:
        settings = json.dumps(dict(self.settings), sort_keys=True)
        needed = self.num_heldout + self.num_prompts
        problems = _distinct(self.name, settings, self.problem_seed, self._size(), self.num_heldout + self._wanted())
        if len(problems) < needed:
            raise ConfigError(
                f"task reasoning_gym: {self.name} at this level has only {len(problems)} distinct problems among "
                f"{self._size()}, {needed} are asked for; choose a harder level in task.settings, or lower "
                "task.num_prompts and task.num_heldout"
            )
        chosen = problems[: self.num_heldout] if suite == "heldout" else problems[self.num_heldout :]
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        template, chat = self._template(), CHAT[self.prompt_format]
        return [
            Prompt(
                id=f"{suite}-{number}",
                text=template.replace("{question}", question),
                data={"index": index, "answer": answer},
                chat=chat,
                system=system,
            )
            for number, (index, question, answer) in enumerate(chosen)
        ]


@functools.lru_cache(maxsize=8)
def _distinct(name: str, settings: str, seed: int, size: int, count: int) -> tuple[tuple[int, str, str], ...]:
    """Index, question and answer of the first ``wanted`` problems with different questions, fewer if ``size`` ends."""
    problems = dataset(name, settings, seed, size)
    first: dict[str, tuple[int, str, str]] = {}
    for index in range(size):
        if len(first) == count:
            break
        entry = problems[index]
        question = str(entry["question"])
        first.setdefault(question, (index, question, str(entry["answer"])))
    return tuple(first.values())
