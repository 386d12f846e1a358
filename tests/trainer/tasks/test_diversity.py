"""Training sets by clusters: what each construction takes, and that embeddings and clusters are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError
from trainer.policy import embeddings
from trainer.policy.embeddings import cached, prompt_embeddings
from trainer.policy.model import backbone, load_model, load_tokenizer
from trainer.policy.prompts import prompt_ids
from trainer.tasks import selected as module
from trainer.tasks.base import Task
from trainer.tasks.countdown import POOL_SIZE, Countdown
from trainer.tasks.diversity import PooledTask, arranged
from trainer.tasks.equations import EquationTask
from trainer.tasks.jsonl import JsonlTask
from trainer.tasks.selected import Selected, kmeans, selected

SHIPPED = ModelConfig()
LABELS = [7, 5, 5, 7, 9, 5]
"""Cluster 5 has three prompts, 7 two, 9 one."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module._labels.cache_clear()
    return tmp_path / "cache" / "rlvr-entropy"


def test_the_three_orders_by_hand() -> None:
    assert arranged(LABELS, "random") == [0, 1, 2, 3, 4, 5]
    assert arranged(LABELS, "clustered") == [1, 2, 5, 0, 3, 4], "the largest cluster, then 7, then 9"
    assert arranged(LABELS, "spread") == [1, 0, 4, 2, 3, 5], "one of each, then the second of each, then the third"
    assert arranged([2, 1, 1, 2], "clustered") == [0, 3, 1, 2], "of equal size, that of the first prompt comes first"


def test_one_cluster_is_the_random_subset_and_all_prompts_are_all_prompts() -> None:
    for subset in ("clustered", "spread"):
        assert arranged([3] * 5, subset) == list(range(5))
        assert sorted(arranged(LABELS, subset)) == list(range(6))


@pytest.mark.parametrize("count", range(1, 41))
def test_clustered_needs_the_fewest_clusters_and_spread_is_even(count: int) -> None:
    labels = [int(number**2) % 11 for number in range(40)]
    sizes = sorted((labels.count(label) for label in set(labels)), reverse=True)
    fewest = next(number for number in range(1, len(sizes) + 1) if sum(sizes[:number]) >= count)
    assert len({labels[index] for index in arranged(labels, "clustered")[:count]}) == fewest
    taken = [labels[index] for index in arranged(labels, "spread")[:count]]
    left = [taken.count(label) for label in set(labels) if taken.count(label) < labels.count(label)]
    assert not left or min(left) >= max(taken.count(label) for label in set(taken)) - 1


def test_kmeans_finds_groups_that_are_apart_and_never_more_than_there_are() -> None:
    rows = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), 4, axis=0) + np.tile([[0.1], [-0.1]], (6, 2))
    found = kmeans(rows.astype(np.float32), 3)
    assert len(set(found.tolist())) == 3 and all(len(set(found[at : at + 4].tolist())) == 1 for at in (0, 4, 8))
    assert np.array_equal(found, kmeans(rows.astype(np.float32), 3))
    assert len(set(kmeans(np.ones((5, 2), dtype=np.float32), 4).tolist())) == 1


def test_an_embedding_is_the_mean_of_the_last_hidden_states_whatever_stands_beside_it() -> None:
    tokenizer = load_tokenizer(SHIPPED)
    tokens = [prompt_ids(tokenizer, prompt) for prompt in Countdown(num_prompts=3).train_prompts()]
    tokens[1] = tokens[1][:4]
    with torch.no_grad():
        network = backbone(load_model(SHIPPED))
        means = [network(input_ids=torch.tensor([ids])).last_hidden_state[0].double().mean(0) for ids in tokens]
    expected = torch.stack(means).numpy()
    expected /= np.sqrt((expected**2).mean())
    assert np.allclose(prompt_embeddings(SHIPPED, tokens), expected, atol=1.01e-4)


def test_embeddings_are_made_once_for_a_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(config: ModelConfig, tokens: Any) -> Any:
        made.append(len(tokens))
        return np.ones((len(tokens), 2), dtype=np.float32)

    monkeypatch.setattr(embeddings, "_embedded", counted)
    for tokens in ([(1, 2), (3,)], [(1, 2), (3,)], [(1,), (2, 3)], [(3,), (1, 2)]):
        prompt_embeddings(SHIPPED, tokens)
    prompt_embeddings(ModelConfig(dtype="bfloat16"), [(1, 2), (3,)])
    assert made == [2, 2, 2, 2], "the second time it was there; other prompts and another type are another content"
    (kept, *_) = sorted((cache / "embeddings").glob("*.npy"))
    kept.write_bytes(b"torn")
    assert cached("embeddings", kept.stem, lambda: np.zeros(1)).tolist() == [0.0] and kept.stat().st_size > 100


def test_without_a_cache_to_write_to_it_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached("clusters", "0" * 32, lambda: np.arange(2)).tolist() == [0, 1]


def test_countdown_by_embeddings_is_fixed_nests_and_leaves_the_random_state(cache: Path) -> None:
    def task(count: int, subset: str, **settings: Any) -> Task:
        chosen = Countdown(num_prompts=count, subset=subset, cluster_by="embeddings", **settings)  # type: ignore[arg-type]
        return selected(chosen, SHIPPED)

    before = torch.random.get_rng_state()
    few, more = (task(count, "clustered", clusters=8).train_prompts() for count in (20, 600))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert few == more[:20] and len({prompt.id for prompt in more}) == 600
    module._labels.cache_clear()
    assert task(600, "clustered", clusters=8).train_prompts() == more, "from the cache"
    spread = task(600, "spread", clusters=8)
    assert spread.notes() == [
        f"task.subset=spread: 600 training prompts from 8 of 8 clusters of the pool's {POOL_SIZE} prompts"
    ]
    assert "from 1 of 8 clusters" in task(20, "clustered", clusters=8).notes()[0]
    assert spread.suites() == Countdown().suites()
    assert task(40, "random").train_prompts() == Countdown(num_prompts=40).train_prompts()


def test_clustered_prompts_are_nearer_to_one_another_than_random_and_spread_ones() -> None:
    tokenizer = load_tokenizer(SHIPPED)

    def spread_of(subset: str) -> float:
        task = Countdown(num_prompts=64, subset=subset, cluster_by="embeddings")  # type: ignore[arg-type]
        prompts = selected(task, SHIPPED).train_prompts()
        found = prompt_embeddings(SHIPPED, [prompt_ids(tokenizer, prompt) for prompt in prompts]).astype(np.float64)
        return float(found.var(axis=0).sum())

    assert spread_of("clustered") < 0.8 * spread_of("random") and spread_of("random") < 1.1 * spread_of("spread")


def test_countdown_by_numbers_spreads_over_its_own_clusters() -> None:
    task = Countdown(num_prompts=64, subset="spread")
    assert selected(task, SHIPPED) is task, "no model is needed"
    prompts = task.train_prompts()
    targets = [int(str(prompt.data["target"])) for prompt in prompts]
    clustered = [int(str(p.data["target"])) for p in Countdown(num_prompts=64, subset="clustered").train_prompts()]
    assert np.std(targets) > np.std(clustered) and len({prompt.id for prompt in prompts}) == 64


def table(tmp_path: Path) -> str:
    rows = [{"question": f"{number} plus {number % 7} is?", "answer": str(number + number % 7)} for number in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return str(tmp_path / "train.jsonl")


def test_a_table_of_questions_is_chosen_by_clusters_and_its_repeats_share_one(tmp_path: Path) -> None:
    path = table(tmp_path)
    tasks = {
        subset: selected(JsonlTask(path=path, num_prompts=12, subset=subset, clusters=4), SHIPPED)  # type: ignore[arg-type]
        for subset in ("random", "clustered", "spread")
    }
    chosen = {name: [prompt.id for prompt in task.train_prompts()] for name, task in tasks.items()}
    assert chosen["random"] == [prompt.id for prompt in JsonlTask(path=path, num_prompts=12).train_prompts()]
    assert len({tuple(ids) for ids in chosen.values()}) == 3
    spread = tasks["spread"]
    assert isinstance(spread, Selected)
    _, pool, labels = spread._clustered()
    twice = [label for prompt, label in zip(pool, labels, strict=True) if prompt.text == pool[0].text]
    assert len(pool) == 41 and len(set(twice)) == 1
    verdict = spread.verify(spread.train_prompts()[0], "\\boxed{-1}")
    assert verdict.reward == 0.0 and verdict.answer == "-1"


def test_equations_and_procedural_problems_have_pools(tmp_path: Path) -> None:
    path = tmp_path / "equations.jsonl"
    path.write_text("".join(json.dumps({"nums": [n, 2, 3], "target": n + 5}) + "\n" for n in range(1, 41)))
    equations = EquationTask(path=str(path), num_heldout=4, num_prompts=8, subset="spread", clusters=4)
    prompts = selected(equations, SHIPPED).train_prompts()
    assert len(prompts) == 8 and not {p.id for p in prompts} & {p.id for p in equations.suites()["heldout"]}
    pytest.importorskip("reasoning_gym")
    from trainer.tasks.reasoning_gym import ReasoningGymTask

    sums: dict[str, Any] = {
        "settings": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
        "verify_seconds": 300.0,
    }
    gym = ReasoningGymTask(num_prompts=5, num_heldout=3, subset="clustered", clusters=4, pool_size=30, **sums)
    random = ReasoningGymTask(num_prompts=30, num_heldout=3, **sums)
    assert gym.suites() == random.suites() and gym.pool() == random.train_prompts()
    chosen = selected(gym, SHIPPED)
    assert {prompt.id for prompt in chosen.train_prompts()} < {prompt.id for prompt in random.train_prompts()}
    response = gym.expert(chosen.train_prompts()[0])
    assert response is not None and chosen.verify(chosen.train_prompts()[0], response).reward == 1.0


def test_what_cannot_be_chosen_is_one_sentence(tmp_path: Path) -> None:
    path = table(tmp_path)
    with pytest.raises(ConfigError, match=r"task.num_prompts=None .*task.subset=spread chooses so many prompts"):
        selected(JsonlTask(path=path, subset="spread"), SHIPPED)
    with pytest.raises(ValueError, match=r"num_prompts is 50, but .* holds 41; ask for fewer"):
        selected(JsonlTask(path=path, subset="spread", num_prompts=50), SHIPPED).train_prompts()
    equations = tmp_path / "equations.jsonl"
    equations.write_text("".join(json.dumps({"nums": [n, 2], "target": n + 2}) + "\n" for n in range(1, 9)))
    alone = EquationTask(path=str(equations), num_heldout=1, num_prompts=3, subset="clustered")
    with pytest.raises(ConfigError, match="needs the embeddings of a model"):
        alone.train_prompts()
    assert isinstance(alone, PooledTask) and len(alone.pool()) == 7
