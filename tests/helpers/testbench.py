"""A tiny causal model in float64, batches for it, and gradients through the trainer's own ``update``.

Used by the numerics and contract suites. In float64 two ways of summing agree to 1e-12, so a tolerance hides nothing.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, StepStats, TokenBatch, TokenTerms, Verdict
from trainer.contract.config import OptimConfig
from trainer.loop import with_advantages
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.base import Context, Surrogate
from trainer.objective.objective import Objective
from trainer.objective.reductions import TokenMean
from trainer.objective.shaping.none import NoShaping
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.policy import shared_prompt
from trainer.policy.policy import Policy
from trainer.policy.prompt_head import PromptHead, add_head
from trainer.runtime.ranks import Ranks
from trainer.runtime.sharding import whole
from trainer.update.gradient import Learner
from trainer.update.master_weights import MasterWeights
from trainer.update.update import UpdateObserver, update

VOCABULARY = 11
PAD = EOS = 0
"""Padding is the end token on purpose: masks must not come from ids."""

SUM_TOLERANCE = 1e-10
"""Float64 sums of a few hundred terms of order 1 in another order differ by about 1e-15; incorrect ones by over
1e-6."""

PLAIN_OPTIM = OptimConfig(lr=1.0, max_grad_norm=0.0)

CONTEXT = Context(seed=3, step=1, num_steps=4, num_epochs=2)


class _Backbone(nn.Module):
    """Embedding, running mean over the past, one nonlinear layer: every position sees all before it and none after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layer = nn.Linear(width, width)
        self.rows_seen = 0

    def forward(self, *, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        self.rows_seen += input_ids.shape[0]
        embedded = self.embedding(input_ids)
        past = embedded.cumsum(dim=1) / (position_ids[..., None] + 1)
        return SimpleNamespace(last_hidden_state=torch.tanh(self.layer(past)) + 0.5 * embedded)


class Toy(nn.Module):
    """What ``Policy`` asks of a language model, and nothing else."""

    def __init__(self, seed: int = 0, width: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # layers fill themselves from the global generator
            self.base_model = _Backbone(width)
            self.head = nn.Linear(width, VOCABULARY)
        self.double()
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def plain(**slots: Any) -> Objective:
    """GRPO with nothing added; ``slots`` replace members."""
    members = {"shaping": NoShaping(), "advantage": GRPO(), "surrogate": PPOClip(), "reduction": TokenMean()}
    return Objective(**(members | slots))


def policy(
    model: nn.Module, *, micro_batch_tokens: int = 10**6, head_chunk: int = 4096, temperature: float = 0.9
) -> Policy:
    """A policy on the CPU; the temperature is not 1, so that a forgotten one shows."""
    return Policy(
        model=model,
        temperature=temperature,
        head_chunk=head_chunk,
        micro_batch_tokens=micro_batch_tokens,
        device=torch.device("cpu"),
        shares_prompts=getattr(getattr(model, "config", None), "_attn_implementation", "") == shared_prompt.NAME,
    )


def equipped(model: nn.Module, objective: Objective) -> nn.Module:
    """A copy of the model with the network on prompts that the objective's surrogate asks for."""
    model = copy.deepcopy(model)
    add_head(model, lambda width: copy.deepcopy(_drawn_once(objective.surrogate, width)), seed=5)
    return model


@functools.cache
def _drawn_once(surrogate: Surrogate, width: int) -> PromptHead | None:
    """Ranks are threads here and share the random state, so what one of them draws depends on the others."""
    return surrogate.prompt_head(width)


def anchor_of(tokens: Sequence[int]) -> int | None:
    """A place for the anchor of a response that depends on its tokens alone, so that rows may change places."""
    return 1 if len(tokens) % 2 else None


def make_rollouts(seed: int = 0, *, groups: int = 4, group_size: int = 3, given: int = 2) -> list[Rollout]:
    """Random responses of 1 to 7 tokens; the first ``given`` start with two given tokens; rewards 0, 0.5 and 1."""
    generator = torch.Generator().manual_seed(seed)

    def ints(low: int, high: int, count: int) -> tuple[int, ...]:
        return tuple(torch.randint(low, high, (count,), generator=generator).tolist())

    rollouts = []
    for group in range(groups):
        prompt_ids = ints(1, VOCABULARY, ints(2, 6, 1)[0])
        for member in range(group_size):
            context = 2 if len(rollouts) < given else 0
            stopped = member % 2 == 0
            tokens = ints(1, VOCABULARY, context + ints(1, 7, 1)[0]) + ((EOS,) if stopped else ())
            rollouts.append(
                Rollout(
                    prompt=Prompt(id=f"p{group}", text="q"),
                    prompt_ids=prompt_ids,
                    completion_ids=tokens,
                    sampler_logprobs=(-1.0,) * len(tokens),
                    finish_reason="stop" if stopped else "length",
                    text=" ".join(map(str, tokens)),
                    group=group,
                    weight_version=0,
                    num_context=context,
                    verdict=Verdict(reward=ints(0, 3, 1)[0] / 2, answer=str(tokens[-1]), anchor=anchor_of(tokens)),
                )
            )
    return rollouts


def on_policy(model: nn.Module, seed: int = 0, **shape: int) -> TokenBatch:
    """A packed batch whose sampler and reference log-probs are the model's own: what the first update of a run sees."""
    batch = collate(make_rollouts(seed, **shape), pad_id=PAD)
    logprobs = policy(model).measure(batch).logprobs
    return replace(batch, sampler_logprobs=logprobs, ref_logprobs=logprobs)


def off_policy(model: nn.Module, seed: int = 0, *, spread: float = 0.3, **shape: int) -> TokenBatch:
    """The same with old and reference log-probs moved by ``spread`` nats: ratios fall on both sides of thresholds."""
    batch = on_policy(model, seed, **shape)
    terms = policy(model).measure(batch)
    generator = torch.Generator().manual_seed(seed + 1)

    def moved(values: Tensor) -> Tensor:
        noise = spread * torch.randn(values.shape, generator=generator)
        return torch.where(batch.mask, (values + noise).clamp(max=-1e-3), torch.zeros(()))

    return replace(
        batch, old_logprobs=moved(terms.logprobs), old_entropy=terms.entropy, ref_logprobs=moved(terms.logprobs)
    )


def rewarded(rewards: Sequence[float], group: Sequence[int] | None = None) -> TokenBatch:
    """A batch of rollouts with these rewards, in one group unless told; the verifier's own are the same."""
    batch = collate(make_rollouts(groups=1, group_size=len(rewards)), pad_id=PAD)
    values = torch.tensor(rewards, dtype=torch.float32)
    return replace(batch, rewards=values, raw_rewards=values, group=torch.tensor(group or [0] * len(rewards)))


def change_floats(batch: TokenBatch, change: Callable[[Tensor], Tensor]) -> TokenBatch:
    """The batch with ``change`` applied to every floating [N, T] column, those of ``extras`` included."""
    columns = {
        name: change(value)
        for name in TokenBatch.__slots__
        if isinstance(value := getattr(batch, name), Tensor) and value.is_floating_point() and value.ndim == 2
    }
    extras = {key: change(v) if v.is_floating_point() and v.ndim == 2 else v for key, v in batch.extras.items()}
    return replace(batch, **columns, extras=extras)


def poisoned(batch: TokenBatch) -> TokenBatch:
    """NaN in every floating column wherever the policy sampled nothing."""
    return change_floats(batch, lambda value: torch.where(batch.mask, value, torch.full_like(value, torch.nan)))


def widened(batch: TokenBatch, extra: int) -> TokenBatch:
    """The same rows with ``extra`` more positions of padding; a negative number cuts positions off."""

    def pad(value: Tensor | None) -> Tensor | None:
        return value if value is None or value.ndim == 1 else nn.functional.pad(value, (0, extra))

    columns = {name: pad(getattr(batch, name)) for name in TokenBatch.__slots__ if name != "extras"}
    positions = torch.arange(batch.inputs.shape[1] + extra).expand(batch.num_rows, -1).contiguous()
    extras = {name: pad(value) for name, value in batch.extras.items()}
    return TokenBatch(**(columns | {"positions": positions}), extras=extras)


@dataclass
class Outcome:
    """What one step of training did."""

    gradient: dict[str, Tensor]
    stats: StepStats
    batch: TokenBatch
    state: dict[str, Any]
    rows_seen: int
    """Rows that went through the model during the update."""

    @property
    def size(self) -> float:
        """Largest entry of the gradient."""
        return max(float(value.abs().max()) for value in self.gradient.values())

    def distance(self, other: Outcome) -> float:
        """Largest difference between two gradients."""
        return max(float((self.gradient[name] - other.gradient[name]).abs().max()) for name in self.gradient)


def _as_it_is(batch: TokenBatch) -> TokenBatch:
    return batch


def _sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def _nobody(learner: Learner, objective: Objective, batch: TokenBatch) -> None:
    return None


@dataclass
class Bench:
    """One step through ``trainer.update.update`` on a copy of the model, keeping the gradient the optimiser was
    given."""

    model: nn.Module
    micro_batch_tokens: int = 10**6
    head_chunk: int = 4096
    temperature: float = 0.9
    ranks: Ranks = field(default_factory=Ranks)
    context: Context = CONTEXT
    spoil: Callable[[TokenBatch], TokenBatch] = _as_it_is
    """Applied to the batch once advantages are there."""
    optim: OptimConfig = PLAIN_OPTIM
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = _sgd
    autocast: torch.dtype | None = None
    shard: bool = False
    """Each rank keeps its part of the weights."""
    offload: bool = False
    """In the memory of the host."""
    observe: Callable[[Learner, Objective, TokenBatch], UpdateObserver | None] = _nobody
    """Makes what watches the updates."""

    def step(self, objective: Objective, batch: TokenBatch, state: dict[str, Any] | None = None) -> Outcome:
        """Advantages, weights, one update, in the order of ``loop.train_step``; ``self.model`` stays as it is."""
        model = equipped(self.model, objective)
        actor = policy(
            model,
            micro_batch_tokens=self.micro_batch_tokens,
            head_chunk=self.head_chunk,
            temperature=self.temperature,
        )
        actor = replace(actor, autocast_dtype=self.autocast)
        actor = actor.sharded(offload=self.offload) if self.shard else actor
        masters = MasterWeights(model.parameters())
        accelerator = self.ranks.accelerator if isinstance(self.ranks, ThreadRanks) else Accelerator(cpu=True)
        optimizer = self.optimizer(masters.parameters())
        gradient: dict[str, Tensor] = {}

        def note(*_: Any) -> None:
            for name, value in model.named_parameters():
                if (found := masters[value].grad) is not None:
                    gradient[name] = whole(found).clone()

        optimizer.register_step_pre_hook(note)
        learner = Learner(
            policy=actor,
            optimizer=accelerator.prepare_optimizer(optimizer),
            accelerator=accelerator,
            ranks=self.ranks,
            optim=self.optim,
            dtype="float32",
            masters=masters,
        )
        state = started(objective, self.context) if state is None else state
        if batch.old_logprobs is not None and objective.old_statistics:
            measured = actor.measure(batch, objective.old_statistics).extras
            batch = replace(batch, extras={f"old_{name}": value for name, value in measured.items()})
        here = replace(self.context, services=ModelServices(policy=actor, rollouts=unpacked(batch)))
        state = state | objective.begin_controllers(state, batch, here)
        objective = objective.controlled(state, self.context)
        batch = with_advantages(batch, objective, here, state)
        state = state | objective.begin_step(state, batch, here)
        batch = self.spoil(objective.with_columns(state, batch, here))
        backbone: Any = model.base_model
        seen = getattr(backbone, "rows_seen", 0)
        watcher = self.observe(learner, objective, batch)
        batch, stats = update(learner, objective, batch, self.context, state, version=0, observer=watcher)
        for name, value in model.named_parameters():
            gradient.setdefault(name, torch.zeros_like(value))
        return Outcome(
            gradient=gradient, stats=stats, batch=batch, state=state, rows_seen=getattr(backbone, "rows_seen", 0) - seen
        )


def started(objective: Objective, context: Context = CONTEXT) -> dict[str, Any]:
    """State after ``setup`` with a base model that is not the one a test trains: a run that is some steps old."""
    return objective.setup(
        objective.initial_state(), replace(context, services=ModelServices(policy=policy(Toy(seed=1))))
    )


def unpacked(batch: TokenBatch) -> tuple[Rollout, ...]:
    """A rollout for every row, with the prompt of its group, the batch's tokens and rewards, and text and anchor as
    :func:`make_rollouts` gives them."""
    rollouts = []
    for row in range(batch.num_rows):
        given, length = int(batch.prompt_lengths[row]), int(batch.lengths[row])
        tokens = tuple(batch.targets[row, given - 1 : length].tolist())
        rollouts.append(
            Rollout(
                prompt=Prompt(id=f"p{int(batch.group[row])}", text="q"),
                prompt_ids=tuple(batch.inputs[row, :given].tolist()),
                completion_ids=tokens,
                sampler_logprobs=tuple(batch.sampler_logprobs[row, given - 1 : length].tolist()),
                finish_reason="length" if batch.truncated[row] else "stop",
                text=" ".join(map(str, tokens)),
                group=int(batch.group[row]),
                weight_version=0,
                verdict=Verdict(reward=float(batch.raw_rewards[row]), answer=str(tokens[-1]), anchor=anchor_of(tokens)),
            )
        )
    return tuple(rollouts)


@dataclass(frozen=True, kw_only=True)
class ModelServices:
    """What components may ask of the run, answered by a model without an engine: prompts with an even number are always
    solved, and every prompt has an expert of its own, some of them shorter than the responses."""

    policy: Policy
    rollouts: tuple[Rollout, ...] = ()

    @property
    def train_prompts(self) -> list[Prompt]:
        return [Prompt(id=f"p{number}", text="q") for number in range(4)]

    def sample(self, prompts: Sequence[Prompt], *, samples: int, purpose: str) -> list[Rollout]:
        drawn = make_rollouts(groups=len(prompts), group_size=samples, given=0)
        return [
            replace(rollout, prompt=prompts[rollout.group], verdict=_verdict(rollout, prompts)) for rollout in drawn
        ]

    @property
    def temperature(self) -> float:
        return self.policy.temperature

    def collate(self, rollouts: Sequence[Rollout]) -> TokenBatch:
        return collate(rollouts, pad_id=PAD)

    def measure(self, batch: TokenBatch, statistics: Iterable[str] = ()) -> TokenTerms:
        return self.policy.measure(batch, statistics)

    def states(self, batch: TokenBatch) -> Float[Tensor, "N D"]:
        return self.policy.mean_states(batch)

    def expert(self, prompt: Prompt) -> Rollout | None:
        return replace(make_rollouts(100 + int(prompt.id[1:]), groups=1, group_size=1, given=0)[0], prompt=prompt)


def _verdict(rollout: Rollout, prompts: Sequence[Prompt]) -> Verdict:
    assert rollout.verdict is not None
    even = int(prompts[rollout.group].id[1:]) % 2 == 0
    return replace(rollout.verdict, reward=1.0) if even else rollout.verdict


class Meeting:
    """Where the threads of :func:`on_ranks` hand items to one another."""

    def __init__(self, world: int) -> None:
        self.items: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=60)

    def exchange(self, rank: int, item: Any) -> list[Any]:
        """Everybody's item, once everybody is here."""
        self.items[rank] = item
        self.barrier.wait()
        items = list(self.items)
        self.barrier.wait()
        return items


@dataclass(frozen=True, kw_only=True)
class ThreadRanks(Ranks):
    """Ranks that are threads of this process; the arithmetic is that of :class:`Ranks`, only the transport differs."""

    meeting: Meeting
    accelerator: Accelerator = field(default_factory=lambda: Accelerator(cpu=True))
    """Made before the threads start: it empties the environment of the process for a moment, and kernels that read the
    environment in another thread then crash the interpreter."""

    def gather(self, item: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, copy.deepcopy(item))

    def sum(self, tensor: Tensor) -> Tensor:
        parts = self.meeting.exchange(self.rank, tensor.detach().clone())
        return tensor.copy_(torch.stack(parts).sum(dim=0))


Result = TypeVar("Result")


def on_ranks(world: int, work: Callable[[Ranks], Result]) -> Sequence[Result]:
    """``work`` done by ``world`` ranks at once; what each returns, in rank order."""
    meeting = Meeting(world)
    with ThreadPoolExecutor(world) as pool:
        ranks = [ThreadRanks(rank=rank, world=world, meeting=meeting) for rank in range(world)]
        return list(pool.map(work, ranks))
