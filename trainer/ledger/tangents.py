"""Directional derivatives of the policy's token terms, and the gradient of its mean entropy.

Exact by forward-mode differentiation; by central differences where an operator of the model has no forward mode
(custom kernels, fused attention).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.batch.types import TokenBatch, TokenTerms, masked_sum
from trainer.policy.policy import Policy, fill
from trainer.runtime.ranks import Ranks

Direction = Mapping[str, Float[Tensor, "*shape"]]
"""One tensor for each trained parameter, by name."""

RELATIVE_STEP = {torch.float64: 1e-5, torch.float32: 2e-3}
"""Length of a central difference over the length of the weights: where rounding and curvature cost about the same."""


def trained_parameters(policy: Policy) -> dict[str, nn.Parameter]:
    """Name and parameter of everything that the optimiser moves, a tied one once."""
    return {name: value for name, value in policy.model.named_parameters() if value.requires_grad}


def entropy_gradient(policy: Policy, rows: TokenBatch, ranks: Ranks) -> tuple[float, dict[str, Tensor]]:
    """Mean entropy H over the response tokens of ``rows`` in nats, and its gradient (by name,
    each [any shape]: its parameter's), nats per unit of the parameter.

    ``.grad`` of the parameters stays as it is. Every rank returns the same numbers.
    """
    parameters = trained_parameters(policy)
    total = torch.zeros((), dtype=torch.float64)
    gradient = {
        name: torch.zeros_like(value, requires_grad=False, dtype=torch.promote_types(value.dtype, torch.float32))
        for name, value in parameters.items()
    }
    tokens = max(rows.num_tokens, 1)
    for index in policy.micro_batch_indices(rows, rank=ranks.rank, world=ranks.world):
        part = rows.rows(index).to(policy.device)
        entropy = masked_sum(policy.terms(part).entropy, part.mask) / tokens
        total += entropy.detach().double().cpu()
        gradients = torch.autograd.grad(entropy, list(parameters.values()), allow_unused=True)
        for name, value in zip(parameters, gradients, strict=True):
            if value is not None:
                gradient[name] += value
    for value in (total, *gradient.values()):
        ranks.sum(value)
    return float(total), gradient


class _Terms(nn.Module):
    """``Policy.terms`` as a module, so that its weights can be replaced for one call."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self.policy = policy

    def forward(self, rows: TokenBatch, names: Iterable[str], temperature: float) -> TokenTerms:
        return self.policy.terms(rows, names, temperature=temperature)


def terms_along(
    policy: Policy,
    rows: TokenBatch,
    direction: Direction,
    ranks: Ranks,
    *,
    statistics: Iterable[str] = (),
    temperature: float | None = None,
    exact: bool = True,
) -> tuple[TokenTerms, TokenTerms]:
    """Terms of ``rows`` and their derivatives along ``direction``: ``d/dx terms(weights + x direction)`` at x = 0.

    Both (rows, time), on the CPU, nats, and nats per unit of x; every rank returns all rows. With ``exact`` raises
    ``NotImplementedError`` where an operator of the model has no forward mode.
    """
    names = sorted(statistics)
    at = policy.temperature if temperature is None else temperature
    one = _forward_mode if exact else _central_difference
    values, slopes = policy.empty_terms(rows, names), policy.empty_terms(rows, names)
    for index in policy.micro_batch_indices(rows, rank=ranks.rank, world=ranks.world):
        value, slope = one(policy, rows.rows(index).to(policy.device), direction, names, at)
        fill(values, index, value)
        fill(slopes, index, slope)
    return ranks.sum_terms(values), ranks.sum_terms(slopes)


def _forward_mode(
    policy: Policy, rows: TokenBatch, direction: Direction, names: list[str], temperature: float
) -> tuple[TokenTerms, TokenTerms]:
    parameters = trained_parameters(policy)
    plain = _Terms(replace(policy, plain_statistics=True))
    # Fused attention has no forward mode; the composition of elementary operators has.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = {
            f"model.{name}": forward_ad.make_dual(value.detach(), direction[name].to(value.dtype))
            for name, value in parameters.items()
        }
        return _split(functional_call(plain, duals, (rows, names, temperature)))


@torch.no_grad()
def _central_difference(
    policy: Policy, rows: TokenBatch, direction: Direction, names: list[str], temperature: float
) -> tuple[TokenTerms, TokenTerms]:
    parameters, module = trained_parameters(policy), _Terms(policy)
    step = _difference_step(parameters, direction)

    def moved(by: float) -> TokenTerms:
        weights = {f"model.{name}": value + by * direction[name].to(value.dtype) for name, value in parameters.items()}
        terms: TokenTerms = functional_call(module, weights, (rows, names, temperature))
        return terms

    ahead, behind = moved(step), moved(-step)
    middle = policy.terms(rows, names, temperature=temperature)
    return middle, _map(lambda high, low: (high - low) / (2 * step), ahead, behind)


def _difference_step(parameters: Mapping[str, Tensor], direction: Direction) -> float:
    """The x for which ``x direction`` is :data:`RELATIVE_STEP` as long as the weights; 1 along no direction."""
    length = sum(float(value.double().square().sum()) for value in direction.values()) ** 0.5
    weights = sum(float(value.detach().double().square().sum()) for value in parameters.values()) ** 0.5
    dtype = next(iter(parameters.values())).dtype
    return RELATIVE_STEP.get(dtype, RELATIVE_STEP[torch.float32]) * weights / length if length else 1.0


def _split(terms: TokenTerms) -> tuple[TokenTerms, TokenTerms]:
    """Values and derivatives of terms that were computed in forward mode."""
    return _map(lambda value: forward_ad.unpack_dual(value).primal, terms), _map(_slope, terms)


def _slope(value: Tensor) -> Tensor:
    """The derivative that ``value`` carries; 0 where it carries none."""
    tangent = forward_ad.unpack_dual(value).tangent
    return torch.zeros_like(value) if tangent is None else tangent


def along_terms(
    function: Callable[[TokenTerms], Mapping[str, Tensor]], values: TokenTerms, slopes: TokenTerms
) -> dict[str, Tensor]:
    """Derivatives of ``function`` of the terms along their ``slopes``, as *gradients* see it: what it detaches, or
    computes under ``no_grad``, does not move. Each [any shape], that of the output; units of the output.

    Forward mode would not know ``no_grad``; so twice backward: with ``v(u) = J^T u``, ``d/du <v(u), slopes> = J
    slopes``.
    """
    with torch.enable_grad():
        leaves = _map(lambda value: value.detach().requires_grad_(), values)
        derivatives = {}
        for name, output in function(leaves).items():
            derivatives[name] = _twice_backward(output, _columns(leaves), _columns(slopes))
        return derivatives


def _twice_backward(output: Tensor, leaves: list[Tensor], slopes: list[Tensor]) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(output)
    u = torch.zeros_like(output).requires_grad_()
    backward = torch.autograd.grad(output, leaves, u, create_graph=True, retain_graph=True, allow_unused=True)
    pairs = [(v, slope) for v, slope in zip(backward, slopes, strict=True) if v is not None and v.requires_grad]
    if not pairs:
        return torch.zeros_like(output)
    product: Tensor = sum((v * slope).sum() for v, slope in pairs)  # type: ignore[assignment]
    return torch.autograd.grad(product, u)[0]


def _columns(terms: TokenTerms) -> list[Tensor]:
    return [terms.logprobs, terms.entropy, *terms.extras.values()]


def _map(change: Callable[..., Tensor], terms: TokenTerms, *others: TokenTerms) -> TokenTerms:
    return TokenTerms(
        logprobs=change(terms.logprobs, *(other.logprobs for other in others)),
        entropy=change(terms.entropy, *(other.entropy for other in others)),
        extras={name: change(value, *(other.extras[name] for other in others)) for name, value in terms.extras.items()},
    )
