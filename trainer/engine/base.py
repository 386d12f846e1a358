"""What the trainer asks of a sampler. It must not know rewards or gradients."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trainer.contract.settings import require
from trainer.runtime.signals import signals_held_back


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Tokens sampled after one prompt."""

    token_ids: tuple[int, ...]
    """The end-of-sequence token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Nats, after temperature and top-p, one per token."""
    finish_reason: str
    """``stop`` or ``length``."""
    entropies: tuple[float, ...] | None = None
    """Nats, of the distribution that each token was sampled from. None: the engine does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What an engine needs to know of the run it serves."""

    model_path: str
    """A folder."""
    dtype: str
    """float32, bfloat16 or float16: of the weights and of what is computed with them."""
    trust_remote_code: bool
    max_length: int
    """Longest prompt + completion, tokens."""
    end_tokens: tuple[int, ...]
    """Ids that end a response, each of which is sampled like any other token and kept."""
    device: str
    """cpu, or cuda with the number of the GPU: the trainer's own."""


def entropy(logprobs: Tensor) -> Tensor:
    """``-sum p log p`` [n, 1] of log-probs [n, V], nats; an impossible token (-inf) adds nothing."""
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(dim=-1, keepdim=True)


def scaled(logits: Tensor, temperature: float, top_p: float = 1.0) -> Tensor:
    """Float32 logits [n, V] of the distribution that tokens are drawn from, as vLLM makes it.

    ``logits / temperature``, and -inf outside the nucleus: the smallest set of most likely tokens whose probabilities
    add up to ``top_p`` or more. Temperature 0 is greedy: the most likely token is taken, and the logits stay as they
    are, so that log-probs and entropies say how sure the model was. Source: Holtzman et al., arXiv 1904.09751.
    """
    if temperature == 0:
        return logits.float()
    logits = logits.float() / temperature
    if top_p == 1:
        return logits
    ascending, order = logits.sort(dim=-1)
    outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - torch.tensor(top_p, dtype=torch.float32)
    outside[:, -1] = False
    return logits.masked_fill(outside.gather(1, order.argsort(dim=-1)), float("-inf"))


class Engine(Protocol):
    """A sampler that holds a copy of the weights.

    Log-probs are those of the distribution that tokens are drawn from (:func:`scaled`): ``softmax(logits /
    temperature)`` over the full vocabulary unless ``top_p`` is below 1; no top-k, no penalty. Temperature 0 takes the
    most likely token, with its log-prob at temperature 1; one sample is then all there is. Sample ``i`` of a prompt
    depends on (weights, prompt, temperature, top_p, seed, i) and on nothing else: not on what was sampled before.
    """

    weight_version: int
    """Number of optimiser steps the loaded weights have seen; -1 before the first load."""

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        seeds: Sequence[int],
        top_p: float = 1.0,
    ) -> list[list[Completion]]:
        """``samples`` completions of each prompt; ``seeds`` has one number per prompt."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace all weights (name and tensor, [any shape], dimensionless), drop every cached prefix, and stamp
        ``version``."""
        ...

    def close(self) -> None:
        """Give back memory and processes."""
        ...


def require_dtype(dtype: str | None) -> None:
    """Raise :class:`ConfigError` for an ``engine.dtype`` that there is not."""
    known = (None, "float32", "bfloat16", "float16")
    remedy = "choose float32, bfloat16 or float16, or null for what the trainer computes with"
    require(dtype in known, "engine.dtype", dtype, remedy)


class EngineConfig(Protocol):
    """The component of the ``engine`` group: settings that start an engine."""

    @property
    def dtype(self) -> str | None:
        """Type that it samples in; None: what the trainer computes with."""
        ...

    @property
    def gap_max(self) -> float | None:
        """Largest log-prob gap of sampler and trainer that a run goes on with, nats; None: by type."""
        ...

    @property
    def gap_mean(self) -> float | None:
        """Largest mean of it, nats; None: by type."""
        ...

    def require_available(self) -> None:
        """Raise :class:`ConfigError` when the engine cannot be started on this machine; cheap."""
        ...

    def start(self, setup: EngineSetup) -> Engine:
        """A running engine with the weights of ``setup.model_path``."""
        ...


@dataclass(slots=True)
class EnginePool:
    """Keeps the engine of one run for the next one in the same process, if it needs the same: starting costs
    seconds."""

    _key: tuple[EngineConfig, EngineSetup] | None = None
    _engine: Engine | None = None

    def get(self, config: EngineConfig, setup: EngineSetup) -> Engine:
        """A running engine for ``config`` and ``setup``; its weights are whatever was loaded last."""
        if self._engine is None or self._key != (config, setup):
            self.close()
            with signals_held_back():
                self._engine, self._key = config.start(setup), (config, setup)
        return self._engine

    def close(self) -> None:
        """Stop the engine, if there is one."""
        engine, self._engine, self._key = self._engine, None, None
        if engine is not None:
            engine.close()


@contextlib.contextmanager
def preserve_torch_state() -> Iterator[None]:
    """Leave torch's, numpy's and Python's random states and the thread count as they were.

    vLLM seeds all three on start, and its CPU worker replaces ``torch.set_num_threads`` by a function that does
    nothing.
    """
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
