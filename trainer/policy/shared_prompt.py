"""A forward pass over packed tokens (no padding), in which the rows of a group compute their common prompt once.

All tokens lie in one sequence, so the linear layers see nothing but real tokens; only attention works on padded rows. A
group of 16 with prompts of 14 and responses of 25 tokens computes 26 tokens a row instead of 39 and their padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "shared_prompt"
"""Of the attention, as transformers knows it."""

SHORT = 64
"""Keys up to which whole matrices of scores are faster on a CPU than the fused kernel and its tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """Where every token of some rows lies on one packed of M tokens: the Q distinct prompts first, then the responses.

    A prompt is what rows have in common before the first response token; rows share it if all its tokens agree.
    """

    tokens: Int[Tensor, " M"]
    positions: Int[Tensor, " M"]
    prompts: Int[Tensor, "Q Tp"]
    """Places of the prompts' tokens, 0 beyond their end."""
    responses: Int[Tensor, "N Tr"]
    """Places of the responses' tokens (what comes after the prompt), 0 beyond their end."""
    rows: Int[Tensor, "N T"]
    """Places of prompt and response together: the keys a row's tokens may look at."""
    visible: Bool[Tensor, "N 1 Tr T"]
    """Whether a response token (third axis) may look at a token of its row (last axis)."""
    unpack_index: Int[Tensor, " M"]
    """For each place, its index in the prompt padded followed by the response padded."""


def pack_tokens(
    inputs: Int[Tensor, "N T"], lengths: Int[Tensor, " N"], prompt_lengths: Int[Tensor, " N"]
) -> PackedTokens:
    """Token ids of right-padded rows, packed, each distinct prompt once; positions count from 0 in every row."""
    device, width = inputs.device, inputs.shape[1]
    index = torch.arange(width, device=device)
    prompt_index, first = (part.to(device) for part in distinct_prompts(inputs, prompt_lengths))
    in_prompt = index < prompt_lengths[first, None]
    own = (index >= prompt_lengths[:, None]) & (index < lengths[:, None])
    prompts = _packed_indices(in_prompt, 0)
    after = _packed_indices(own, int(in_prompt.sum()))
    at = prompt_lengths[:, None] + torch.arange(int((lengths - prompt_lengths).max()), device=device)
    in_response = at < lengths[:, None]
    prompt_width = int(prompt_lengths.max())
    return PackedTokens(
        tokens=torch.cat([inputs[first][in_prompt], inputs[own]]),
        positions=torch.cat([index.expand_as(part)[part] for part in (in_prompt, own)]),
        prompts=prompts[:, :prompt_width],
        responses=torch.where(in_response, after.gather(1, at.clamp(max=width - 1)), 0),
        rows=torch.where(index < prompt_lengths[:, None], prompts[prompt_index], after),
        visible=(index <= at[..., None])[:, None],
        unpack_index=torch.cat([in_prompt[:, :prompt_width].flatten(), in_response.flatten()]).nonzero().squeeze(1),
    )


def _packed_indices(mask: Bool[Tensor, "N T"], start: int) -> Int[Tensor, "N T"]:
    """Numbers from ``start`` for the True entries, row by row; 0 for the others."""
    return torch.where(mask, mask.flatten().cumsum(0).view_as(mask) - 1 + start, 0)


def distinct_prompts(
    inputs: Int[Tensor, "N T"], prompt_lengths: Int[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Int[Tensor, " Q"]]:
    """For each row the index of its prompt (one number per distinct sequence of token ids), and for each prompt the
    first row that has it."""
    numbers: dict[bytes, int] = {}
    first: list[int] = []
    prompt_index: list[int] = []
    tokens = inputs.cpu().numpy()
    for row, length in enumerate(prompt_lengths.tolist()):
        number = numbers.setdefault(tokens[row, :length].tobytes(), len(numbers))
        if number == len(first):
            first.append(row)
        prompt_index.append(number)
    return torch.tensor(prompt_index), torch.tensor(first)


def hidden_states(backbone: Any, packed: PackedTokens) -> Float[Tensor, "M D"]:
    """Last hidden states, dimensionless, of one forward pass; the model has to use :func:`attention`."""
    hidden: Tensor = backbone(
        input_ids=packed.tokens[None], position_ids=packed.positions[None], use_cache=False, packed=packed
    ).last_hidden_state
    return hidden[0]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packed: PackedTokens | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the rows of ``line``; without one, transformers' own.

    ``query`` [1, heads, M, D], ``key`` and ``value`` [1, key heads, M, D]; returns [1, M, heads, D]; all
    dimensionless. Raises ``ValueError`` for what it would otherwise ignore (a sliding window, a soft cap, sinks): such
    models keep their own.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    unknown = {name for name, option in options.items() if option is not None} - {"use_cache", "position_ids"}
    if unknown or sliding_window is not None or dropout:
        raise ValueError(f"{NAME} attention knows no {', '.join(sorted(unknown)) or 'sliding window or dropout'}")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if q.is_cuda and q.shape[1] != k.shape[1]:  # its kernels that take a mask know no shared keys
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    parts = [
        scaled_dot_product_attention(
            _take(q, packed.prompts),
            _take(k, packed.prompts),
            _take(v, packed.prompts),
            is_causal=True,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    ]
    if packed.responses.shape[1]:
        parts.append(
            _masked(
                _take(q, packed.responses),
                _take(k, packed.rows),
                _take(v, packed.rows),
                visible=packed.visible,
                scale=scaling,
            )
        )
    padded = torch.cat([part.transpose(1, 2).reshape(-1, *q.shape[1:]) for part in parts])
    return padded.index_select(0, packed.unpack_index)[None], None


def _masked(q: Tensor, k: Tensor, v: Tensor, *, visible: Bool[Tensor, "N 1 Tr T"], scale: float | None) -> Tensor:
    """``softmax(q k^T scale) v`` over what is visible. ``q`` [N, heads, Tr, D]; ``k``, ``v`` [N, key heads, T, D]."""
    rows, heads, width, dim = q.shape
    key_heads, keys = k.shape[1:3]
    if q.device.type != "cpu" or keys > SHORT:
        return scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale, enable_gqa=heads != key_heads)
    q = q.reshape(rows, key_heads, -1, dim) * (dim**-0.5 if scale is None else scale)  # heads that share keys as one
    scores = (q @ k.transpose(2, 3)).view(rows, key_heads, -1, width, keys)
    scores += torch.zeros_like(visible, dtype=q.dtype).masked_fill_(~visible, -torch.inf)[:, :, None]
    return (scores.softmax(dim=-1).view(rows, key_heads, -1, keys) @ v).view(rows, heads, width, dim)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """[M, heads, D] at indices [N, T] as [N, heads, T, D]."""
    return values.index_select(0, indices.flatten()).view(*indices.shape, *values.shape[1:]).transpose(1, 2)


AttentionInterface.register(NAME, attention)
