"""Which prompts of a pool are trained on: at random, or by clusters of similar ones, for low or high diversity.

There are three orders of one pool; the training set is the first ``count`` of an order, so that a smaller set is part
of a larger one. It gets the cluster of each prompt and must not know what makes prompts similar.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError, require
from trainer.tasks.base import Task

Subset = Literal["random", "clustered", "spread"]
"""``random``: of all prompts alike. ``clustered``: all from as few clusters as that takes, low diversity. ``spread``:
evenly from all clusters, high diversity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A training set that is chosen by clusters of embeddings."""

    count: int
    """Training prompts."""
    subset: Subset
    clusters: int
    """Of K-means over the whole pool."""


@runtime_checkable
class PooledTask(Task, Protocol):
    """A task whose training prompts may be chosen by embeddings; :class:`trainer.tasks.selected.Selected` does it."""

    def selection(self) -> Selection | None:
        """How; None where the task needs no embeddings for it. Raises :class:`ConfigError` for settings that say
        nothing."""
        ...

    def pool(self) -> list[Prompt]:
        """All prompts that may be trained on, in the order of which ``random`` takes the first."""
        ...


def selection(subset: Subset, count: int | None, clusters: int) -> Selection | None:
    """What :meth:`PooledTask.selection` is for these settings of a task."""
    if subset == "random":
        return None
    remedy = f"task.subset={subset} chooses so many prompts by their clusters, so give a number"
    require(count is not None, "task.num_prompts", count, remedy)
    return Selection(count=count or 0, subset=subset, clusters=clusters)


def at_random(chosen: Selection | None) -> None:
    """Refuse to pass a random training set off as one by clusters."""
    if chosen is not None:
        raise ConfigError(
            f"task.subset={chosen.subset} needs the embeddings of a model: ask trainer.tasks.selected.selected for the "
            "task's prompts"
        )


def shuffled(prompts: Sequence[Prompt], problem_seed: int) -> list[Prompt]:
    """``prompts`` in an order of ``problem_seed`` that ``random`` takes the first of."""
    order = list(prompts)
    random.Random(f"{problem_seed}/subset").shuffle(order)
    return order


def arranged(labels: Sequence[int], subset: Subset) -> list[int]:
    """Indices of all prompts of a pool in the order in which they are taken; ``labels`` are their clusters [P].

        random     i
        clustered  (rank of i's cluster, i)
        spread     (earlier prompts of i's cluster, rank of i's cluster, i)

    sorted, where clusters rank by falling size, and by their first prompt where sizes are equal. So ``clustered`` needs
    the fewest clusters that hold so many prompts, and ``spread`` takes as many from every cluster (up to one), as long
    as that has any left. With one cluster, or all of the pool, the three are the same set.

    Source: arXiv 2511.05993, specification 2.2, which keeps the prompts of some clusters ("top-M") and compares them
    with a random subset of equal size. Departures: which clusters are the top was not recovered, here it is the
    largest; the last of them is cut to the size; ``spread`` is not in the paper.
    """
    if subset == "random":
        return list(range(len(labels)))
    sizes = Counter(labels)  # in the order of first prompts, which a stable sort keeps
    rank = {label: place for place, label in enumerate(sorted(sizes, key=lambda label: -sizes[label]))}
    occurrences: Counter[int] = Counter()
    keys = []
    for index, label in enumerate(labels):
        keys.append(((0 if subset == "clustered" else occurrences[label]), rank[label], index))
        occurrences[label] += 1
    return [index for *_, index in sorted(keys)]
