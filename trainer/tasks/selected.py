"""A task whose training prompts are chosen by K-means on embeddings of the run's base model.

Made by :func:`trainer.setup.build.build_run` and wherever a task is built for its training prompts. Same model, prompts
and settings: same choice, whatever the seed of the run.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.batch.types import Prompt
from trainer.contract.config import ModelConfig
from trainer.contract.settings import require
from trainer.tasks.base import Task
from trainer.tasks.diversity import PooledTask, Selection, arranged
from trainer.tasks.fitted import Fitted

VERSION = "K-means, 1"
"""Changes with whatever changes the clusters of the same embeddings."""

Asked = tuple[str, bool | None, str | None, tuple[tuple[str, str], ...]]
"""What of a prompt reaches the model: text, chat, system turn, examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Fitted):
    """``task`` with the training prompts that its settings choose by embeddings of ``model``."""

    task: PooledTask
    model: ModelConfig

    @property
    def bad_rows(self) -> str:
        """As the task says."""
        return str(getattr(self.task, "bad_rows", "refuse"))

    def train_prompts(self) -> list[Prompt]:
        """The first so many of :func:`trainer.tasks.diversity.arranged`."""
        chosen, pool, labels = self._clustered()
        return [pool[index] for index in arranged(labels, chosen.subset)[: chosen.count]]

    def notes(self) -> list[str]:
        """As the task has, and how many clusters the training set comes from."""
        chosen, pool, labels = self._clustered()
        chosen_clusters = {labels[index] for index in arranged(labels, chosen.subset)[: chosen.count]}
        return [
            *self.task.notes(),
            f"task.subset={chosen.subset}: {chosen.count} training prompts from {len(chosen_clusters)} of "
            f"{len(set(labels))} clusters of the pool's {len(pool)} prompts",
        ]

    def _clustered(self) -> tuple[Selection, list[Prompt], tuple[int, ...]]:
        chosen, pool = self.task.selection(), self.task.pool()
        assert chosen is not None
        remedy = f"there are {len(pool)} prompts to choose from: ask for fewer"
        require(chosen.count <= len(pool), "task.num_prompts", chosen.count, remedy)
        contents = tuple((prompt.text, prompt.chat, prompt.system, prompt.examples) for prompt in pool)
        return chosen, pool, _labels(self.model, contents, chosen.clusters)


def selected(task: Task, model: ModelConfig) -> Task:
    """``task``, with its training prompts chosen by embeddings of ``model`` where its settings ask for that."""
    chosen_by_model = isinstance(task, PooledTask) and task.selection() is not None
    return Selected(task=task, model=model) if chosen_by_model else task  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4)
def _labels(model: ModelConfig, contents: tuple[Asked, ...], clusters: int) -> tuple[int, ...]:
    """The cluster of each prompt. Prompts that occur again count once, and the order of the pool plays no part."""
    # Only here a model is needed: processes that build a task to judge responses do without transformers.
    from trainer.policy.embeddings import cached, prompt_embeddings
    from trainer.policy.model import load_tokenizer
    from trainer.policy.prompts import prompt_ids

    tokenizer = load_tokenizer(model)
    tokens = {
        content: prompt_ids(
            tokenizer, Prompt(id=content[0], text=content[0], chat=content[1], system=content[2], examples=content[3])
        )
        for content in dict.fromkeys(contents)
    }
    distinct = sorted(set(tokens.values()))
    embeddings = prompt_embeddings(model, distinct)
    digest = hashlib.sha256(f"{VERSION}\n{embeddings.shape}\n{clusters}\n".encode() + embeddings.tobytes()).hexdigest()
    assignment = cached("clusters", digest[:32], lambda: kmeans(embeddings, clusters))
    label = dict(zip(distinct, assignment.tolist(), strict=True))
    return tuple(label[tokens[content]] for content in contents)


def kmeans(embeddings: NDArray[np.float32], clusters: int) -> NDArray[np.int64]:
    """The cluster [P] of each row of ``embeddings`` [P, F]: Lloyd's algorithm from k-means++ with one fixed seed, in
    float64 on one thread, so that the same machine always says the same. At most as many clusters as distinct rows."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    rows = embeddings.astype(np.float64)
    count = min(clusters, len(np.unique(rows, axis=0)))
    with threadpool_limits(limits=1):
        fitted = KMeans(n_clusters=count, init="k-means++", n_init=1, random_state=0, algorithm="lloyd").fit(rows)
    return np.asarray(fitted.labels_, dtype=np.int64)
