"""What every engine promises: parity with the trainer, seeds, independent rows, stops, weights that really arrive."""

from __future__ import annotations

import math
import os
import random
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.engine.conftest import SCHEDULED
from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, TokenBatch, Verdict
from trainer.engine.base import Completion, Engine, EnginePool, entropy, preserve_torch_state, scaled
from trainer.engine.transformers import TransformersEngine
from trainer.engine.vllm import preload_kept

SEEDS = [11, 12, 13, 14, 15, 16]
Groups = list[list[Completion]]


def sample(engine: Engine, bench: Any, **changes: Any) -> Groups:
    settings = {"samples": 4, "temperature": 1.0, "max_tokens": 24, "seeds": SEEDS} | changes
    return engine.generate(settings.pop("prompts", bench.prompts), **settings)


def test_libraries_that_vllm_preloads_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "/mine.so"):
        monkeypatch.delenv("LD_PRELOAD", raising=False)
        if before is not None:
            monkeypatch.setenv("LD_PRELOAD", before)
        with preload_kept():
            monkeypatch.setenv("LD_PRELOAD", "/a b/libgomp.so")
        assert os.environ.get("LD_PRELOAD") == before


def tokens(groups: Groups) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def batch_of(bench: Any, groups: Groups) -> TokenBatch:
    return collate(
        [
            Rollout(
                prompt=Prompt(id=str(number), text=""),
                prompt_ids=bench.prompts[number],
                completion_ids=completion.token_ids,
                sampler_logprobs=completion.logprobs,
                sampler_entropies=completion.entropies,
                finish_reason=completion.finish_reason,
                text="",
                group=number,
                weight_version=0,
                verdict=Verdict(reward=0.0),
            )
            for number, group in enumerate(groups)
            for completion in group
        ],
        pad_id=0,
    )


def gap(bench: Any, groups: Groups, temperature: float = 1.0) -> float:
    """Largest absolute difference between the sampler's and the trainer's log-probs, nats."""
    batch = batch_of(bench, groups)
    terms = replace(bench.policy, temperature=temperature).measure(batch)
    return float((terms.logprobs - batch.sampler_logprobs).abs().max())


@pytest.mark.parametrize("engine_name", ["vllm", "transformers"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropies_are_those_of_the_trainer(engine_name: str, bench: Any, temperature: float) -> None:
    batch = batch_of(bench, sample(bench.named(engine_name), bench, temperature=temperature))
    terms = replace(bench.policy, temperature=temperature).measure(batch)
    assert batch.sampler_entropy is not None
    assert float((terms.entropy - batch.sampler_entropy).abs().max()) < 1e-4
    assert float(terms.entropy.max()) > 0.1


def test_entropy_by_hand() -> None:
    logprobs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).log()
    torch.testing.assert_close(entropy(logprobs), torch.tensor([[1.5 * math.log(2)], [0.0]]))


def perturb(bench: Any, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in bench.policy.model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def test_logprobs_are_those_of_the_trainer(engine_name: str, bench: Any) -> None:
    assert gap(bench, sample(bench.named(engine_name), bench)) < 1e-4


def test_the_two_engines_agree_on_the_same_tokens(bench: Any) -> None:
    # What vLLM sampled is given to transformers as prompt; its next-token log-prob is that of vLLM's next token.
    groups = sample(bench.named("vllm"), bench)
    model = bench.transformers._model
    for prompt, group in zip(bench.prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids])
            with torch.no_grad():
                log_p = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = log_p.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_logprobs_are_those_after_temperature(engine_name: str, bench: Any) -> None:
    groups = sample(bench.named(engine_name), bench, temperature=0.7)
    assert gap(bench, groups, temperature=0.7) < 1e-4
    assert gap(bench, groups, temperature=1.0) > 1e-2


def test_the_engines_sample_from_the_same_distribution(engine_name: str, bench: Any) -> None:
    """Frequencies of the first token of 600 samples against the policy's generator probabilities.

    The statistic sum_a (f_a - n p_a)^2 / (n p_a) over tokens with n p_a >= 5 has about as many degrees of freedom as
    terms, fewer than 40 for this vocabulary; 40 + 6 sqrt(80), six deviations above, is never exceeded by chance.
    """
    engine, count = bench.named(engine_name), 600
    groups = sample(engine, bench, prompts=bench.prompts[:1], seeds=[3], samples=count, max_tokens=1)
    first = np.array([completion.token_ids[0] for completion in groups[0]])
    with torch.no_grad():
        p = bench.policy.model(torch.tensor([bench.prompts[0]])).logits[0, -1].softmax(-1).numpy()
    observed = np.bincount(first, minlength=len(p))
    usual = count * p >= 5
    statistic = ((observed - count * p) ** 2 / (count * p))[usual].sum()
    assert usual.sum() >= 2 and statistic < 40 + 6 * 80**0.5


def test_seeds_decide_the_samples(engine_name: str, bench: Any) -> None:
    engine = bench.named(engine_name)
    first = sample(engine, bench)
    assert sample(engine, bench) == first
    other = sample(engine, bench, seeds=[seed + 100 for seed in SEEDS])
    assert all(a != b for a, b in zip(tokens(other), tokens(first), strict=True))
    for group in tokens(first):
        assert len(set(group)) > 1, "members of a group have noise of their generator"
    same = sample(engine, bench, prompts=[bench.prompts[0]] * 2, seeds=[2**40, 2**62 + 12345])
    assert not set(tokens(same)[0]) & set(tokens(same)[1]), "nor do two groups of one prompt share any"


def test_samples_do_not_depend_on_what_else_is_sampled(engine_name: str, bench: Any) -> None:
    engine = bench.named(engine_name)
    together = sample(engine, bench, samples=6)
    for number in (0, 3, 5):
        alone = sample(engine, bench, samples=6, prompts=[bench.prompts[number]], seeds=[SEEDS[number]])
        assert tokens(alone)[0] == tokens(together)[number]
        for one, many in zip(alone[0], together[number], strict=True):
            np.testing.assert_allclose(one.logprobs, many.logprobs, atol=1e-4)
    backwards = sample(engine, bench, samples=6, prompts=bench.prompts[::-1], seeds=SEEDS[::-1])
    assert tokens(backwards)[::-1] == tokens(together)
    fewer = sample(engine, bench, samples=2)
    assert tokens(fewer) == [group[:2] for group in tokens(together)]


@pytest.mark.parametrize("engine_name", ["vllm", SCHEDULED])
def test_more_prompt_tokens_than_fit_one_pass(engine_name: str, bench: Any) -> None:
    """vLLM takes 8192 tokens at a time; on a CPU it cannot go on with a seeded prompt that was cut there."""
    engine = bench.named(engine_name)
    prompts = [(bench.prompts[number % 6] * 6)[:60] for number in range(160)]
    settings = {"samples": 1, "max_tokens": 2}
    together = sample(engine, bench, prompts=prompts, seeds=range(160), **settings)
    alone = sample(engine, bench, prompts=prompts[-20:], seeds=range(140, 160), **settings)
    assert len(prompts) * 60 > 8192
    assert tokens(together)[-20:] == tokens(alone)


def test_prompts_of_several_lengths_and_small_batches(bench: Any) -> None:
    prompts = [prompt[: 3 + number] for number, prompt in enumerate(bench.prompts)]
    whole = sample(bench.named("transformers"), bench, prompts=prompts)
    small = TransformersEngine(batch_size=3).start(bench.setup)
    assert tokens(sample(small, bench, prompts=prompts)) == tokens(whole)


def test_the_end_token_is_part_of_the_response(engine_name: str, bench: Any) -> None:
    groups = sample(bench.named(engine_name), bench, max_tokens=40)
    completions = [completion for group in groups for completion in group]
    assert {completion.finish_reason for completion in completions} <= {"stop", "length"}
    stopped = [completion for completion in completions if completion.finish_reason == "stop"]
    assert len(stopped) > len(completions) / 2
    assert all(c.token_ids[-1] == bench.eos and bench.eos not in c.token_ids[:-1] for c in stopped)
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids) <= 40
        assert all(logprob <= 0 for logprob in completion.logprobs)


def test_max_tokens_is_a_limit(engine_name: str, bench: Any) -> None:
    groups = sample(bench.named(engine_name), bench, max_tokens=3)
    for completion in (completion for group in groups for completion in group):
        assert completion.finish_reason == "length" and len(completion.token_ids) == 3
        assert bench.eos not in completion.token_ids


def test_new_weights_arrive(engine_name: str, bench: Any) -> None:
    engine = bench.named(engine_name)
    sample(engine, bench)
    perturb(bench)
    # Not yet: what is sampled now is what the old weights say, and the trainer at the new ones sees the difference.
    assert gap(bench, sample(engine, bench)) > 1e-2
    engine.load_weights(bench.policy.model.state_dict().items(), 7)
    assert engine.weight_version == 7
    assert gap(bench, sample(engine, bench)) < 1e-4
    # And again, because a second reload starts from repacked layers.
    perturb(bench)
    engine.load_weights(bench.policy.model.state_dict().items(), 8)
    assert gap(bench, sample(engine, bench)) < 1e-4


def test_a_tied_output_layer_arrives(engine_name: str, bench: Any) -> None:
    """``named_parameters`` names a tied head once, and vLLM leaves its generator as it was; the state dict names
    both."""
    engine, model = bench.named(engine_name), bench.policy.model
    assert model.config.tie_word_embeddings and "lm_head.weight" in model.state_dict()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.5)
    assert gap(bench, sample(engine, bench)) > 1e-2
    engine.load_weights(model.state_dict().items(), 1)
    assert gap(bench, sample(engine, bench)) < 1e-4


def test_loading_drops_the_prefix_cache(bench: Any) -> None:
    """The same prompt before and after: what is left of it in the cache would be of the old weights."""
    engine: Any = bench.named(SCHEDULED)
    block = engine._llm.llm_engine.vllm_config.cache_config.block_size
    prompt = (bench.prompts[0] * 32)[: block + 16]
    assert len(prompt) + 8 <= bench.setup.max_length, "nothing shorter than a block is ever kept"
    for version in (1, 2):
        engine.generate([prompt], samples=2, temperature=1.0, max_tokens=8, seeds=[1])
        perturb(bench)
        engine.load_weights(bench.policy.model.state_dict().items(), version)
        groups = engine.generate([prompt], samples=2, temperature=1.0, max_tokens=8, seeds=[1])
        assert gap(replace(bench, prompts=[prompt]), groups) < 1e-4


def test_a_prefix_cache_that_stays_is_an_error(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = bench.named("vllm")
    monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(RuntimeError, match="prefix cache"):
        engine.load_weights(bench.policy.model.state_dict().items(), 3)
    assert engine.weight_version == 0, "a version is stamped only on weights that are fully there"


def random_states() -> tuple[Any, ...]:
    numpy_state: Any = np.random.get_state()
    return (
        random.getstate(),
        numpy_state[1].tobytes(),
        numpy_state[2],
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.set_num_threads,
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    )


def test_the_trainer_does_not_notice_the_engine(engine_name: str, bench: Any) -> None:
    """Random states, thread count, ``torch.set_num_threads`` itself, grad mode: as they were."""
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    before = random_states()
    engine = bench.named(engine_name)
    assert random_states() == before
    sample(engine, bench)
    assert random_states() == before
    torch.set_num_threads(1)
    assert torch.get_num_threads() == 1, "it still works"
    torch.set_num_threads(threads)


def test_the_fence_holds_when_the_inside_crashes() -> None:
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    before = random_states()
    with pytest.raises(RuntimeError, match="inside"), preserve_torch_state():
        random.random(), np.random.rand(), torch.rand(1)
        torch.set_num_threads = lambda count: None  # what vLLM's CPU worker does
        raise RuntimeError("inside")
    assert random_states() == before


def test_the_pool_keeps_an_engine_that_fits(bench: Any) -> None:
    class Config:
        started = 0

        def start(self, setup: Any) -> Any:
            Config.started += 1
            # What is started here inherits the mask, and a signal to the whole job does not kill it.
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGUSR1, signal.SIGUSR2}
            return replace_engine()

    closed = []

    def replace_engine() -> Any:
        engine = type("Fake", (), {"close": lambda self: closed.append(self)})()
        return engine

    pool, config = EnginePool(), Config()
    first = pool.get(config, bench.setup)
    assert pool.get(config, bench.setup) is first and Config.started == 1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGUSR1, signal.SIGUSR2}
    second = pool.get(config, replace(bench.setup, max_length=1024))
    assert second is not first and closed == [first]
    pool.close()
    pool.close()
    assert closed == [first, second]


def test_the_nucleus_by_hand() -> None:
    """Of 0.5, 0.3, 0.15, 0.05 the two likeliest add up to 0.75 and the first alone does not: 5/8 and 3/8 are left."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.5, 0.3, 0.05, 0.15]]).log()
    kept = scaled(logits, 1.0, 0.75).softmax(dim=-1)
    torch.testing.assert_close(kept, torch.tensor([[0, 5 / 8, 0, 3 / 8], [5 / 8, 3 / 8, 0, 0]]))
    assert (scaled(logits, 1.0, 1e-6) > -math.inf).sum(dim=-1).tolist() == [1, 1], "the most likely token always stays"
    # Temperature comes first: squared at 1/2, 0.25 / 0.365 = 0.68 is enough for 0.6 by itself.
    assert (scaled(logits, 0.5, 0.6) > -math.inf).sum(dim=-1).tolist() == [1, 1]
    assert torch.equal(scaled(logits, 0.0, 0.3), logits), "greedy: log-probs are those of the model"


def test_greedy_responses_are_the_most_likely_tokens_and_the_same_in_every_engine(engine_name: str, bench: Any) -> None:
    greedy = {"temperature": 0.0, "samples": 1}
    groups = sample(bench.named(engine_name), bench, **greedy)
    assert tokens(sample(bench.named(engine_name), bench, seeds=SEEDS[::-1], **greedy)) == tokens(groups), "no chance"
    assert tokens(groups) == tokens(sample(bench.transformers, bench, **greedy))
    assert gap(bench, groups) < 1e-4, "log-probs are those of temperature 1"
    for prompt, (completion,) in zip(bench.prompts, groups, strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        with torch.no_grad():
            best = bench.policy.model(ids).logits[0, len(prompt) - 1 : -1].argmax(dim=-1)
        assert best.tolist() == list(completion.token_ids)


def test_only_the_nucleus_is_sampled_in_its_own_proportions(engine_name: str, bench: Any) -> None:
    """First tokens of 600 samples at temperature 1.5 and top-p 0.8: chi-square as above, on the kept tokens."""
    engine, count = bench.named(engine_name), 600
    settings = {"prompts": bench.prompts[:1], "seeds": [3], "samples": count, "max_tokens": 1}
    groups = sample(engine, bench, temperature=1.5, top_p=0.8, **settings)
    with torch.no_grad():
        logits = bench.policy.model(torch.tensor([bench.prompts[0]])).logits[:, -1] / 1.5
    p = logits.softmax(dim=-1)[0].numpy()
    order = np.argsort(-p)
    nucleus = order[: int(np.searchsorted(p[order].cumsum(), 0.8)) + 1]
    kept = np.zeros_like(p)
    kept[nucleus] = p[nucleus] / p[nucleus].sum()
    first = np.array([completion.token_ids[0] for completion in groups[0]])
    assert 2 <= len(nucleus) < len(p) and set(first) <= set(nucleus)
    for completion in groups[0]:
        assert completion.logprobs[0] == pytest.approx(math.log(kept[completion.token_ids[0]]), abs=1e-4)
    observed = np.bincount(first, minlength=len(p))
    usual = count * kept >= 5
    statistic = ((observed - count * kept) ** 2 / np.maximum(count * kept, 1e-9))[usual].sum()
    assert statistic < 40 + 6 * 80**0.5
