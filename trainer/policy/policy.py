"""The policy: one forward pass of a causal language model to token statistics.

It must not sample, and it must not know rewards.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trainer.batch.collate import micro_batches, shared_micro_batches
from trainer.batch.types import TokenBatch, TokenTerms
from trainer.policy import prompt_head, shared_prompt
from trainer.policy.adapter import adapter_weights, in_place
from trainer.policy.distribution_stats import ENTROPY_T1
from trainer.policy.model import backbone
from trainer.policy.token_stats import plain_token_stats, token_stats
from trainer.runtime.sharding import Result, Root, load_weights, shard, whole

HiddenStates = Callable[[Bool[Tensor, "N T"]], Float[Tensor, "M D"]]
"""Last hidden states at the positions of a mask, row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model together with what turns its hidden states into statistics."""

    model: nn.Module
    temperature: float
    """Divides the logits, in the trainer exactly as in the sampler."""
    head_chunk: int
    micro_batch_tokens: int
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    logprob_dtype: torch.dtype | None = None
    """What log-probs are rounded to, as trainers do that make ratios in 16 bits; None: they keep their digits."""
    shares_prompts: bool = False
    """The model uses the attention of ``shared_prompt.py``: a prompt is computed once, and no padding at all."""
    plain_statistics: bool = False
    """Statistics by elementary operators, which have a forward mode, instead of the tiled pass and its own backward."""
    adapter: Mapping[str, Tensor] | None = None
    """Weights of a LoRA adapter to compute with, instead of those that the model has and that are trained."""
    root: Root | None = None
    """Makes the weights outside of the blocks whole for a forward pass. None: every rank has all weights."""

    def terms(
        self, batch: TokenBatch, statistics: Iterable[str] = (), *, temperature: float | None = None
    ) -> TokenTerms:
        """One forward pass over rows on the policy's device; columns are 0 outside the mask. Differentiable where
        gradients are enabled. ``temperature`` stands in for the policy's own, for rows sampled at another.
        """
        at = self.temperature if temperature is None else temperature
        return self._with_whole_weights(partial(self._terms, batch, statistics, at))

    def _with_whole_weights(self, compute: Callable[[], Result]) -> Result:
        result: Result = compute() if self.root is None else self.root(compute)
        return result

    def _terms(self, batch: TokenBatch, statistics: Iterable[str], temperature: float) -> TokenTerms:
        alike = {ENTROPY_T1} & set(statistics) if temperature == 1 else set()
        of_prompts = {prompt_head.NAME} & set(statistics)
        mask = batch.mask
        with self._computing():
            states = self._hidden(batch)
        hidden = states(mask)
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        stats = (plain_token_stats if self.plain_statistics else token_stats)(
            hidden.to(head.weight.dtype),  # as the model's own head would round
            head.weight,
            batch.targets[mask],
            bias=getattr(head, "bias", None),
            temperature=temperature,
            statistics=set(statistics) - alike - of_prompts,
            chunk=self.head_chunk,
        )
        if self.logprob_dtype is not None:
            stats["logprobs"] = _rounded(stats["logprobs"], self.logprob_dtype)
        full = {name: _scatter(value, mask) for name, value in stats.items()}
        full |= dict.fromkeys(alike, full["entropy"])
        full |= {name: self._of_prompt(states, batch) for name in of_prompts}
        return TokenTerms(logprobs=full.pop("logprobs"), entropy=full.pop("entropy"), extras=full)

    @property
    def support(self) -> int:
        """Tokens that every distribution is over: the output layer's, less those that its bias bars with -inf."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        bias = getattr(head, "bias", None)
        return int(head.weight.shape[0]) if bias is None else int((whole(bias) != -torch.inf).sum())

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """The types and the adapter that the model computes with."""
        autocast = (
            torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else contextlib.nullcontext()
        )
        with autocast, in_place(self.model, self.adapter):
            yield

    def _hidden(self, batch: TokenBatch) -> HiddenStates:
        """Hidden states of every real position, to be asked for by a mask."""
        if not batch.num_rows:  # a rank without rows takes part all the same: blocks are whole only for all at once
            token = torch.zeros((1, 1), dtype=torch.long, device=self.device)
            alone: Tensor = backbone(self.model)(input_ids=token, position_ids=token, use_cache=False).last_hidden_state
            return lambda mask: alone[0, :0]
        if self.shares_prompts:
            packed = shared_prompt.pack_tokens(batch.inputs, batch.lengths, batch.prompt_lengths)
            states = shared_prompt.hidden_states(backbone(self.model), packed)
            return lambda mask: states.index_select(0, packed.rows[mask])
        # Rows are padded on the right and attention is causal, so padding cannot reach a real position: no mask.
        hidden: Tensor = backbone(self.model)(
            input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        return lambda mask: hidden[mask]

    def _of_prompt(self, states: HiddenStates, batch: TokenBatch) -> Float[Tensor, "N T"]:
        """What the network on the prompts' mean hidden states says, at every sampled position of a row."""
        head: Any = getattr(self.model, prompt_head.NAME)
        in_prompt = torch.arange(batch.inputs.shape[1], device=batch.mask.device) < batch.prompt_lengths[:, None]
        features = _row_means(states(in_prompt), in_prompt).to(head.last.weight.dtype)
        values: Tensor = head(features, batch.extras.get(prompt_head.SEED))
        return torch.where(batch.mask, values[:, None], torch.zeros((), dtype=values.dtype, device=values.device))

    @torch.no_grad()
    def mean_states(self, batch: TokenBatch, *, rank: int = 0, world: int = 1) -> Float[Tensor, "N D"]:
        """Mean over each row's sampled positions of the last hidden states, that is of those the tokens were sampled
        from; dimensionless, float32 at least, on the CPU; 0 in rows without any, and in those of other ranks."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        means = self.column(batch).new_zeros(batch.num_rows, head.weight.shape[1])
        for index in self.micro_batch_indices(batch, rank=rank, world=world):
            rows = batch.rows(index).to(self.device)
            means[index] = self._with_whole_weights(partial(self._mean_states, rows, means.dtype)).cpu()
        return means

    def _mean_states(self, rows: TokenBatch, dtype: torch.dtype) -> Float[Tensor, "N D"]:
        with self._computing():
            states = self._hidden(rows)
        return _row_means(states(rows.mask).to(dtype), rows.mask)

    def micro_batch_indices(self, batch: TokenBatch, *, rank: int = 0, world: int = 1) -> list[Tensor]:
        """Row indices [n] of one rank's micro-batches: all of them are dealt out in turn, so ranks get like amounts.
        Each rank gets as many, the last ones an empty one where they do not go round."""
        if self.shares_prompts:
            prompt_index, first = shared_prompt.distinct_prompts(batch.inputs, batch.prompt_lengths)
            tokens = int((batch.lengths - batch.prompt_lengths).sum() + batch.prompt_lengths[first].sum())
            most = min(self.micro_batch_tokens, -(-tokens // world))
            parts = [*shared_micro_batches(batch.lengths, batch.prompt_lengths, prompt_index, most)]
        else:
            most = min(self.micro_batch_tokens, -(-int(batch.lengths.sum()) // world))
            parts = [*micro_batches(batch.lengths, most)]
        parts += [torch.empty(0, dtype=torch.long)] * (-len(parts) % world)
        return parts[rank::world]

    def column(self, batch: TokenBatch) -> Float[Tensor, "N T"]:
        """Zeros (nats) on the CPU, of the statistics' dtype: the same weights then give a ratio of exactly 1."""
        dtype = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        return torch.zeros(batch.mask.shape, dtype=dtype)

    @torch.no_grad()
    def measure(
        self, batch: TokenBatch, statistics: Iterable[str] = (), *, rank: int = 0, world: int = 1
    ) -> TokenTerms:
        """:meth:`terms` of every row without a graph, in micro-batches, on the CPU; with several ranks each does its
        share.

        Columns of rows that belong to other ranks are 0, so a sum over ranks completes them.
        """
        names = sorted(statistics)
        whole = self.empty_terms(batch, names)
        for index in self.micro_batch_indices(batch, rank=rank, world=world):
            fill(whole, index, self.terms(batch.rows(index).to(self.device), names))
        return whole

    def empty_terms(self, batch: TokenBatch, statistics: Iterable[str]) -> TokenTerms:
        """Columns of zeros for every row, on the CPU."""
        extras = {name: self.column(batch) for name in statistics}
        return TokenTerms(logprobs=self.column(batch), entropy=self.column(batch), extras=extras)

    def frozen_copy(self) -> Policy:
        """The same policy with weights that will not move, without gradient: the reference model. Where an adapter is
        all that moves, a copy of the adapter serves."""
        if own := adapter_weights(self.model):
            return replace(self, adapter={name: weight.clone() for name, weight in own.items()})
        return replace(self, model=copy.deepcopy(self.model).requires_grad_(False))

    def refreshed(self, policy: Policy) -> Policy:
        """This frozen copy with the present weights of the policy that it was made from."""
        if self.adapter is not None:
            return policy.frozen_copy()
        load_weights(self.model, policy.model.state_dict())
        return self

    def sharded(self, *, offload: bool = False) -> Policy:
        """The same policy, of whose weights this rank keeps its part only, with ``offload`` in its host's memory."""
        return replace(self, root=shard(self.model, self.device, offload=offload))

    def frozen_weights(self) -> dict[str, Tensor]:
        """What makes a frozen copy: weights [any shape], dimensionless, by name."""
        return dict(self.model.state_dict() if self.adapter is None else self.adapter)


def fill(terms: TokenTerms, index: Tensor, part: TokenTerms) -> None:
    """Write the columns of the rows at ``index`` [n], detached and in their units, into those of the whole batch."""
    width = part.logprobs.shape[1]
    terms.logprobs[index, :width] = part.logprobs.detach().cpu()
    terms.entropy[index, :width] = part.entropy.detach().cpu()
    for name, column in terms.extras.items():
        column[index, :width] = part.extras[name].detach().cpu()


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers of a narrower type in the type that they have, with the gradient of the identity."""
    return values + (values.detach().to(dtype).to(values.dtype) - values.detach())


def _row_means(states: Float[Tensor, "M D"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N D"]:
    """Mean of each row's states; row by row, so that no other row and no padding moves a bit. 0 of none."""
    if not len(mask):
        return states[:0]
    parts = states.split(mask.sum(dim=1).tolist())
    return torch.stack([part.sum(dim=0) / max(len(part), 1) for part in parts])


def _scatter(values: Float[Tensor, " M"], mask: Tensor) -> Float[Tensor, "N T"]:
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
