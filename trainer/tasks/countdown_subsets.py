"""Clusters of countdown problems by their numbers and targets: whole groups of similar problems.

It must stay in whole-number arithmetic, so that the same subset comes out on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_CLUSTERS = 64


def clusters_by_numbers(keys: Sequence[tuple[Sequence[int], int]], clusters: int = NUM_CLUSTERS) -> list[int]:
    """The cluster of each problem, as :func:`clustered_order` makes them."""
    features, centres = _clustered(keys, clusters)
    return _squared_distances(features, features[centres]).argmin(dim=1).tolist()


def clustered_order(keys: Sequence[tuple[Sequence[int], int]], clusters: int = NUM_CLUSTERS) -> list[int]:
    """Indices of all problems, cluster by cluster; the first n are the clustered subset of size n (they nest).

    Source: data diversity of "Revisiting Entropy in RL for Large Reasoning Models", specification 2.2, which keeps
    the prompts of some k-means clusters of embeddings. Departures: the features are the sorted numbers and the target
    (the target divided by 3, so that both have a like spread) instead of embeddings; centres come from farthest-first
    traversal in exact integers instead of k-means; clusters are taken by the distance of their centre from the first
    problem's cluster (the paper's ranking was not recovered); the last cluster is cut, nearest to its centre first.

    Args:
        keys: (sorted numbers, target) of each problem, all with equally many numbers.
    """
    features, centres = _clustered(keys, clusters)
    to_centres = _squared_distances(features, features[centres])
    nearest = to_centres.argmin(dim=1).tolist()
    to_own = to_centres.min(dim=1).values.tolist()
    start = features[centres[nearest[0]]]
    from_start = _squared_distances(features[centres], start[None])[:, 0].tolist()

    def rank(index: int) -> tuple[int, int, int, int]:
        return from_start[nearest[index]], nearest[index], to_own[index], index

    return sorted(range(len(keys)), key=rank)


def _clustered(keys: Sequence[tuple[Sequence[int], int]], clusters: int) -> tuple[Tensor, list[int]]:
    """Features [N, F] of the problems, and the indices of the centres."""
    features = torch.tensor([[*(8 * number for number in numbers), 8 * target // 3] for numbers, target in keys])
    return features, _farthest_first(features, min(clusters, len(keys)))


def _farthest_first(features: Tensor, count: int) -> list[int]:
    """Indices of ``count`` rows of ``features`` [N, F]: the first, then always the one farthest from those taken."""
    chosen = [0]
    gap = _squared_distances(features, features[:1])[:, 0]
    while len(chosen) < count:
        chosen.append(int(gap.argmax()))
        gap = torch.minimum(gap, _squared_distances(features, features[chosen[-1] :][:1])[:, 0])
    return chosen


def _squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Squared Euclidean distances [N, K] of int64 ``rows`` [N, F] and ``centres`` [K, F]."""
    return (rows[:, None, :] - centres[None, :, :]).square().sum(dim=2)
