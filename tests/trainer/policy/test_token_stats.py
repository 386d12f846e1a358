"""Token statistics against hand numbers, float64 autograd through log-softmax, and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from trainer.policy import token_stats as module
from trainer.policy.distribution_stats import STATISTICS
from trainer.policy.token_stats import plain_token_stats, token_stats

PARAMETERS = {
    "tempered_logprobs": ("@1.25",),
    "top_k_logprobs": ("@2",),
    "top_k_mass": ("@2",),
    "min_p_kept": ("@0.3",),
    "min_p_logmass": ("@0.3",),
    "top_p_entropy": ("@0.8", "@0.8@1", "@2"),
}
"""Numbers for statistics that take some."""
ALL = tuple(sorted(name + numbers for name in STATISTICS for numbers in PARAMETERS.get(name, ("",))))
FLOAT32_TOLERANCE = {"logprobs": 1.5e-5, "entropy": 5e-6}
"""Log-probs here reach -40, where one float32 step is 4e-6, and inherit the rounding of the product. In the entropy
those errors are weighted by p; lse - sum p z, without the largest logit taken off, would be off by 2e-5."""


def case(rows: int = 7, width: int = 5, vocabulary: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    return normal(rows, width), normal(vocabulary, width), normal(vocabulary), targets


def reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
) -> dict[str, Tensor]:
    """The definitions, written with log-softmax and left to autograd."""
    logits = hidden @ weight.T + (0 if bias is None else bias)
    log_p = (logits / temperature).log_softmax(dim=-1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(dim=-1)
    own = logits.softmax(dim=-1)  # the filter is that of temperature 1
    kept = own >= 0.3 * own.max(dim=-1, keepdim=True).values
    return {
        "logprobs": log_p.gather(1, targets[:, None]).squeeze(1),
        "entropy": entropy,
        "entropy_t1": -(own * own.log()).sum(dim=-1),
        "min_p_logmass@0.3": (p * kept).sum(dim=-1).log(),
        "sum_p2": (p * p).sum(dim=-1),
        "sum_p2_logp_h": (p * p * (log_p + entropy[:, None])).sum(dim=-1),
        "min_p_kept@0.3": kept.gather(1, targets[:, None]).squeeze(1).to(p.dtype),
        "tempered_logprobs@1.25": (logits / (1.25 * temperature)).log_softmax(dim=-1).gather(1, targets[:, None])[:, 0],
        "top_k_logprobs@2": log_p.topk(2, dim=-1).values.mean(dim=-1),
        "top_k_mass@2": p.topk(2, dim=-1).values.sum(dim=-1),
        "top_p_entropy@0.8": nucleus_entropy(own, 0.8, include_crossing=False),
        "top_p_entropy@0.8@1": nucleus_entropy(own, 0.8, include_crossing=True),
        "top_p_entropy@2": -(own * own.log()).sum(dim=-1),
    }


def nucleus_entropy(p: Tensor, top_p: float, *, include_crossing: bool) -> Tensor:
    """Token by token, as specification 4 says it, without a vector operation."""
    values = []
    for row in p:
        order = sorted(range(len(row)), key=lambda a: -float(row[a].detach()))
        masses = [float(row[order[: rank + 1]].sum().detach()) for rank in range(len(order))]
        crossing = next((rank for rank, mass in enumerate(masses) if mass >= top_p), len(order))
        inside = row[order[: crossing + include_crossing]]
        q = inside / inside.sum()
        values.append(-(q * q.log()).sum())
    return torch.stack(values)


def from_logits(logits: Tensor, targets: Tensor, **options: Any) -> dict[str, Tensor]:
    """Statistics of given logits: hidden states are rows of the identity and the head holds one row of logits each."""
    return token_stats(torch.eye(len(logits), dtype=logits.dtype), logits.T, targets, **options)


def test_hand_numbers_of_a_two_token_distribution() -> None:
    # z = (ln 3, 0): p = (3/4, 1/4).  H = ln 4 - 3/4 ln 3 = 1.386294 - 0.823959 = 0.562335.
    # sum p^2 (ln p + H) = 9/16 (-0.287682 + 0.562335) + 1/16 (-1.386294 + 0.562335) = 0.154492 - 0.051497 = 0.102995.
    stats = from_logits(torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64), torch.tensor([1]), statistics=ALL)
    assert stats["logprobs"].item() == pytest.approx(math.log(0.25), abs=1e-12)
    assert stats["entropy"].item() == pytest.approx(0.562335, abs=1e-6)
    assert stats["sum_p2"].item() == pytest.approx(10 / 16, abs=1e-12)
    assert stats["sum_p2_logp_h"].item() == pytest.approx(0.102995, abs=1e-6)


def test_hand_numbers_of_the_entropy_discriminator() -> None:
    # p = (0.6, 0.3, 0.1): H = 0.897946, sum p^2 = 0.46, sum p^2 ln p + H sum p^2 = -0.315281 + 0.413055 = 0.097774;
    # p_k (ln p_k + H) = 0.232272, -0.091808, -0.140464, and the three add up to 0.
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    stats = from_logits(p.log().expand(3, 3), torch.arange(3), statistics=("sum_p2", "sum_p2_logp_h"))
    score = stats["logprobs"].exp() * (stats["logprobs"] + stats["entropy"])
    assert stats["entropy"].tolist() == pytest.approx([0.897946] * 3, abs=1e-6)
    assert score.tolist() == pytest.approx([0.232272, -0.091808, -0.140464], abs=1e-6)
    assert score.sum().item() == pytest.approx(0.0, abs=1e-12)
    assert stats["sum_p2"].tolist() == pytest.approx([0.46] * 3, abs=1e-12)
    assert stats["sum_p2_logp_h"].tolist() == pytest.approx([0.097774] * 3, abs=1e-6)
    # A push of size a on the logits along the gradient of log p_k moves H by -a (S_k - E).
    step, moved = 1e-6, []
    for k in range(3):
        push = step * (torch.nn.functional.one_hot(torch.tensor(k), 3) - p)
        sides = [from_logits((p.log() + sign * push)[None], torch.tensor([0]))["entropy"].item() for sign in (1, -1)]
        moved.append((sides[0] - sides[1]) / (2 * step))
    assert moved == pytest.approx([-0.134498, 0.189583, 0.238238], abs=2e-6)
    assert moved == pytest.approx((stats["sum_p2_logp_h"] - score).tolist(), abs=1e-8)


def test_a_single_logit_moves_the_collision_probability_by_its_distance_from_it() -> None:
    # d sum p^2 / dz_k = 2 p_k (p_k - sum p^2): (0.6, 0.3, 0.1) and 0.46 give 0.168, -0.096, -0.072.
    logits = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log().requires_grad_()
    value = from_logits(logits, torch.tensor([0]), statistics=("sum_p2",))["sum_p2"]
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.tolist() == [pytest.approx([0.168, -0.096, -0.072], abs=1e-12)]


def of(p: list[float], name: str) -> float:
    logits = torch.tensor([p], dtype=torch.float64).log()
    return from_logits(logits, torch.tensor([0]), statistics=(name,))[name].item()


@pytest.mark.parametrize(
    ("p", "name", "value"),
    [
        # Masses 0.5, 0.75, 0.9, 1: two tokens stay below 0.8, q = (2/3, 1/3), H = ln 3 - 2/3 ln 2 = 0.636514.
        ([0.25, 0.1, 0.5, 0.15], "top_p_entropy@0.8", 0.636514),
        # With the third: q = (10, 5, 3)/18, H = ln 18 - (10 ln 10 + 5 ln 5 + 3 ln 3)/18 = 0.980990.
        ([0.25, 0.1, 0.5, 0.15], "top_p_entropy@0.8@1", 0.980990),
        # The likeliest token alone crosses 0.8: nothing is left, or it alone.
        ([0.9, 0.05, 0.05], "top_p_entropy@0.8", 0.0),
        ([0.9, 0.05, 0.05], "top_p_entropy@0.8@1", 0.0),
        # Above 1 everything is kept: the full entropy, 1.5 ln 2.
        ([0.5, 0.25, 0.25], "top_p_entropy@1.1", 1.039721),
        # The target is the first token.
        ([0.9, 0.09, 0.01], "min_p_kept@1", 1.0),
        ([0.09, 0.9, 0.01], "min_p_kept@0.09", 1.0),
        ([0.09, 0.9, 0.01], "min_p_kept@0.11", 0.0),
        # 0.01 < 0.02 * 0.9 = 0.018 is filtered; 0.99 stays.
        ([0.9, 0.09, 0.01], "min_p_logmass@0.02", math.log(0.99)),
        ([0.9, 0.09, 0.01], "min_p_logmass@0.01", 0.0),
        ([0.9, 0.09, 0.01], "min_p_logmass@1", math.log(0.9)),
        ([0.9, 0.09, 0.01], "min_p_logmass@0", 0.0),
    ],
)
def test_hand_numbers_of_nuclei_and_floors(p: list[float], name: str, value: float) -> None:
    assert of(p, name) == pytest.approx(value, abs=1e-6)


def test_keeping_every_token_changes_no_bit() -> None:
    hidden, weight, bias, _ = case(dtype=torch.float32)
    # With a floor of 1 only the likeliest token is kept, and its distance to itself is exactly 0.
    likeliest = (hidden @ weight.T + bias).argmax(dim=-1)
    stats = token_stats(hidden, weight, likeliest, bias=bias, statistics=("min_p_logmass@0", "min_p_kept@1"))
    assert stats["min_p_logmass@0"].tolist() == [0.0] * 7
    assert stats["min_p_kept@1"].tolist() == [1.0] * 7


def test_a_nucleus_looks_at_the_likeliest_candidates_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.policy.distribution_stats.MAX_NUCLEUS", 2)
    # p = (0.3, 0.3, 0.2, 0.2) and top_p = 0.9: the first two of three are candidates, q = (1/2, 1/2).
    assert of([0.3, 0.2, 0.3, 0.2], "top_p_entropy@0.9") == pytest.approx(math.log(2), abs=1e-9)


def test_an_empty_nucleus_has_no_gradient() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([0, 0]), statistics=("top_p_entropy@0.8",))
    (gradient,) = torch.autograd.grad(stats["top_p_entropy@0.8"].sum(), logits)
    assert gradient[0].tolist() == [0.0] * 3
    assert gradient[1].any()


def test_minus_the_kept_mass_is_the_divergence_from_its_own_proxy_held_fixed() -> None:
    # KL(q || p) with q = p on the kept tokens, renormalised and detached: value -log sum_kept p, gradient p - q.
    logits = torch.tensor([[2.0, 0.5, -1.0, -4.0]], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(dim=-1)
    p = log_p.detach().exp()
    q = p * (p >= 0.1 * p.max())
    q = q / q.sum()
    kl = (q * (q.clamp(min=1e-300).log() - log_p)).sum()
    mass = from_logits(logits, torch.tensor([0]), statistics=("min_p_logmass@0.1",))["min_p_logmass@0.1"]
    assert 0 < q.count_nonzero() < 4
    assert -mass.item() == pytest.approx(kl.item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (-mass.sum(), kl))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, p - q, rtol=0, atol=1e-12)


def test_hand_gradient_with_respect_to_logits() -> None:
    # dl/dz_a = 1[a = target] - p_a = (-3/4, 3/4);  dH/dz_a = -p_a (ln p_a + H) = (-0.205990, 0.205990).
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([1]))
    (by_logprob,) = torch.autograd.grad(stats["logprobs"].sum(), logits, retain_graph=True)
    (by_entropy,) = torch.autograd.grad(stats["entropy"].sum(), logits)
    assert by_logprob.tolist() == [pytest.approx([-0.75, 0.75], abs=1e-12)]
    assert by_entropy.tolist() == [pytest.approx([-0.205990, 0.205990], abs=1e-6)]


@pytest.mark.parametrize("vocabulary", [2, 8, 1000])
def test_uniform_logits_have_entropy_log_v_and_no_entropy_gradient(vocabulary: int) -> None:
    logits = torch.full((3, vocabulary), 1.7, dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([0, 1, 1]))
    assert stats["entropy"].tolist() == pytest.approx([math.log(vocabulary)] * 3, abs=1e-12)
    assert stats["logprobs"].tolist() == pytest.approx([-math.log(vocabulary)] * 3, abs=1e-12)
    (gradient,) = torch.autograd.grad(stats["entropy"].sum(), logits)
    assert gradient.abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_has_entropy_zero_and_logprob_zero(dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 9, dtype=dtype)
    logits[0, 4] = logits[1, 2] = 200.0
    stats = from_logits(logits, torch.tensor([4, 2]), statistics=ALL)
    assert stats["entropy"].tolist() == pytest.approx([0.0, 0.0], abs=1e-80)  # 8 other tokens of e^-200 each
    assert stats["logprobs"].tolist() == pytest.approx([0.0, 0.0], abs=1e-80)


def test_high_temperature_tends_to_log_v() -> None:
    hidden, weight, bias, targets = case(vocabulary=6)
    entropy = token_stats(hidden, weight, targets, bias=bias, temperature=1e6)["entropy"]
    assert entropy.tolist() == pytest.approx([math.log(6)] * 7, abs=1e-9)


def test_mean_surprisal_of_samples_tends_to_the_entropy() -> None:
    hidden, weight, _, _ = case(rows=1, vocabulary=6)
    p = (hidden @ weight.T).softmax(dim=-1).detach()[0]
    samples = torch.multinomial(p, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    stats = token_stats(hidden.expand(20_000, -1), weight, samples)
    # Surprisal has a standard deviation near 1 nat, so the mean of 20 000 is within 0.03 in all but one of 10^5 trials.
    assert -stats["logprobs"].mean().item() == pytest.approx(stats["entropy"][0].item(), abs=0.03)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_equal_autograd_through_log_softmax(temperature: float, with_bias: bool) -> None:
    hidden, weight, bias, targets = case()
    bias = bias if with_bias else None
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    ours = token_stats(hidden, weight, targets, bias=bias, temperature=temperature, statistics=ALL, chunk=3)
    theirs = reference(hidden, weight, bias, targets, temperature)
    assert ours.keys() == theirs.keys()
    mix = torch.randn(len(theirs), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-12)
    totals = [
        sum((row * side[name]).sum() for row, name in zip(mix, sorted(side), strict=True)) for side in (ours, theirs)
    ]
    for ours_grad, theirs_grad in zip(*(torch.autograd.grad(total, leaves) for total in totals), strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("output", "wanted"),
    [("logprobs", ()), ("entropy", ()), *((output, ALL) for output in ("logprobs", "entropy", *ALL))],
)
def test_finite_differences_of_every_output_for_hidden_weight_and_bias(output: str, wanted: tuple[str, ...]) -> None:
    hidden, weight, bias, targets = case(rows=3, width=2, vocabulary=4)

    def one(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return token_stats(hidden, weight, targets, bias=bias, temperature=0.7, statistics=wanted, chunk=2)[output]

    assert torch.autograd.gradcheck(one, (hidden, weight, bias))


@pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7, 8, 4096])
def test_chunk_size_changes_nothing(chunk: int) -> None:
    hidden, weight, bias, targets = case()
    whole = token_stats(hidden, weight, targets, bias=bias, statistics=ALL, chunk=7)
    parts = token_stats(hidden, weight, targets, bias=bias, statistics=ALL, chunk=chunk)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-14)
    leaves = (hidden, weight, bias)
    expected = torch.autograd.grad(sum(value.sum() for value in whole.values()), leaves)
    for got, want in zip(torch.autograd.grad(sum(v.sum() for v in parts.values()), leaves), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def seen_tiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of all logits that are ever made from now on."""
    seen: list[tuple[int, ...]] = []
    original = module._scaled_logits

    def counted(*arguments: Any) -> Tensor:
        logits = original(*arguments)
        seen.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(module, "_scaled_logits", counted)
    return seen


def test_never_more_rows_of_logits_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_tiles(monkeypatch)
    hidden, weight, bias, targets = case()
    stats = token_stats(hidden, weight, targets, bias=bias, statistics=ALL, chunk=3)
    sum(value.sum() for value in stats.values()).backward()
    assert seen == 2 * [(3, 6), (3, 6), (1, 6)]


def small_tiles(monkeypatch: pytest.MonkeyPatch, logits: int, side: int = 1) -> None:
    monkeypatch.setattr(module, "TILE", dict.fromkeys(module.TILE, logits))
    monkeypatch.setattr(module, "MIN_SIDE", side)


def test_never_more_logits_than_one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, 12)
    seen = seen_tiles(monkeypatch)
    hidden, weight, bias, targets = case()  # 7 rows, 6 columns
    token_stats(hidden, weight, targets, bias=bias, chunk=3)["entropy"].sum().backward()
    forward = [(3, 4), (3, 2), (3, 4), (3, 2), (1, 4), (1, 2)]
    assert seen == [*forward, (3, 4), (3, 4), (1, 4), (3, 2), (3, 2), (1, 2)], "back by columns, then rows"
    seen.clear()
    stats = token_stats(hidden, weight, targets, bias=bias, statistics=ALL, chunk=3)  # whole rows, so fewer of them
    sum(value.sum() for value in stats.values()).backward()
    assert seen == 2 * [(2, 6), (2, 6), (2, 6), (1, 6)]


@pytest.mark.parametrize("logits", [1, 3, 8, 14, 21])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, logits: int, temperature: float) -> None:
    small_tiles(monkeypatch, logits)
    hidden, weight, bias, targets = case()
    leaves = (hidden, weight, bias)
    ours = token_stats(hidden, weight, targets, bias=bias, temperature=temperature, chunk=3)
    theirs = reference(hidden, weight, bias, targets, temperature)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-12)
        (row,) = torch.randn(1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        expected = torch.autograd.grad((row * theirs[name]).sum(), leaves, retain_graph=True)
        for got, want in zip(
            torch.autograd.grad((row * value).sum(), leaves, retain_graph=True), expected, strict=True
        ):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("descending", [False, True])
def test_the_largest_logit_may_come_in_any_tile(monkeypatch: pytest.MonkeyPatch, descending: bool) -> None:
    # Steps of 100 nats between tiles: all but the last bit of mass moves with every new largest logit.
    small_tiles(monkeypatch, 1)
    logits = torch.tensor([[0.0, 100.0, 200.0, 200.0 + math.log(3.0)]], dtype=torch.float64)
    logits = logits.flip(1) if descending else logits
    stats = from_logits(logits, torch.tensor([0 if descending else 3]))
    assert stats["entropy"].item() == pytest.approx(0.562335, abs=1e-6)  # (3/4, 1/4), as by hand above
    assert stats["logprobs"].item() == pytest.approx(math.log(0.75), abs=1e-12)


def test_a_tile_of_impossible_tokens_is_as_if_it_did_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, 2)
    inf = torch.inf
    logits = torch.tensor([[-inf, -inf, math.log(3.0), 0.0, -inf, -inf]], dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([3]))
    assert stats["entropy"].item() == pytest.approx(0.562335, abs=1e-6)
    assert stats["logprobs"].item() == pytest.approx(math.log(0.25), abs=1e-12)
    (gradient,) = torch.autograd.grad(stats["logprobs"].sum(), logits)
    assert gradient.tolist() == [pytest.approx([0.0, 0.0, -0.75, 0.75, 0.0, 0.0], abs=1e-12)]


def test_what_is_no_number_stays_visible() -> None:
    hidden, weight, _, targets = case(rows=2)
    stats = token_stats(torch.where(torch.tensor([[True], [False]]), torch.nan, hidden), weight, targets)
    assert stats["logprobs"].isnan().tolist() == stats["entropy"].isnan().tolist() == [True, False]


def test_impossible_tokens_are_as_if_they_did_not_exist() -> None:
    hidden, weight, bias, _ = case(vocabulary=6)
    targets = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    barred = torch.cat([bias.detach()[:4], torch.tensor([-torch.inf, -torch.inf], dtype=torch.float64)])
    with_them = token_stats(hidden, weight, targets, bias=barred.requires_grad_(), statistics=ALL)
    leaves = (hidden, weight, barred)
    gradient = torch.autograd.grad(sum(value.sum() for value in with_them.values()), leaves)
    short = weight[:4].detach().requires_grad_()
    without = token_stats(hidden, short, targets, bias=bias[:4], statistics=ALL)
    expected = torch.autograd.grad(sum(value.sum() for value in without.values()), (hidden, short))
    for name, value in without.items():
        torch.testing.assert_close(with_them[name], value, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient[0], expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient[1][:4], expected[1], rtol=0, atol=1e-12)
    assert gradient[1][4:].tolist() == [[0.0] * 5] * 2
    assert gradient[2][4:].tolist() == [0.0, 0.0]


def test_underflowing_probabilities_give_finite_gradients() -> None:
    # exp(-2000) is 0 even in float64: p log p has to be 0 there, not 0 * -2000 or nan.
    logits = torch.tensor([[0.0, -2000.0, 1.0], [3000.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([1, 0]), statistics=ALL)
    total = sum(value.sum() for value in stats.values())
    assert torch.isfinite(total)
    assert torch.isfinite(torch.autograd.grad(total, logits)[0]).all()


def test_no_rows_give_empty_columns_and_zero_gradients() -> None:
    hidden, weight, bias, targets = case(rows=0)
    stats = token_stats(hidden, weight, targets, bias=bias, statistics=ALL)
    assert all(value.shape == (0,) for value in stats.values())
    sum(value.sum() for value in stats.values()).backward()
    assert hidden.grad.shape == hidden.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_gradients_reach_only_what_asks_for_them() -> None:
    hidden, weight, bias, targets = case()
    token_stats(hidden, weight.detach(), targets, bias=bias.detach())["entropy"].sum().backward()
    assert hidden.grad.any()
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_results_are_float32_and_gradients_keep_their_dtype(dtype: torch.dtype) -> None:
    hidden, weight, bias, targets = case(dtype=dtype)
    stats = token_stats(hidden, weight, targets, bias=bias, statistics=ALL)
    assert {value.dtype for value in stats.values()} == {torch.float32}
    sum(value.sum() for value in stats.values()).backward()
    assert hidden.grad.dtype == weight.grad.dtype == bias.grad.dtype == dtype


def test_float32_values_are_within_rounding_of_float64() -> None:
    hidden, weight, _, targets = case(rows=200, width=32, vocabulary=300, dtype=torch.float32)
    exact = token_stats(hidden.double(), weight.double(), targets)
    for name, value in token_stats(hidden, weight, targets).items():
        assert (value.double() - exact[name]).abs().max() < FLOAT32_TOLERANCE[name]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["logprobs", "entropy"])
@pytest.mark.parametrize(("chunk", "tile"), [(64, 2**21), (4096, 2**21), (4096, 2**12)])
def test_bfloat16_error_is_no_larger_than_that_of_plain_bfloat16_autograd(
    monkeypatch: pytest.MonkeyPatch, output: str, chunk: int, tile: int
) -> None:
    small_tiles(monkeypatch, tile)
    rows, width, vocabulary = 256, 32, 200
    hidden, weight, _, targets = case(rows, width, vocabulary, dtype=torch.bfloat16)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    exact = reference(*exact_leaves, None, targets, 1.0)[output]
    exact_grad = torch.autograd.grad(exact.sum(), exact_leaves)
    errors: dict[str, list[float]] = {}
    ways = {
        "ours": token_stats(hidden, weight, targets, chunk=chunk)[output],
        "plain": reference(hidden, weight, None, targets, 1.0)[output],
    }
    for way, value in ways.items():
        gradients = torch.autograd.grad(value.float().sum(), (hidden, weight))
        pairs = [(value, exact), *zip(gradients, exact_grad, strict=True)]
        errors[way] = [float((got.double() - want).detach().norm() / want.detach().norm()) for got, want in pairs]
    assert all(ours <= plain for ours, plain in zip(errors["ours"], errors["plain"], strict=True)), errors


@pytest.mark.parametrize("level", [0.0, 100.0, -1e4, 1e4])
def test_a_common_level_of_all_logits_costs_no_digit(level: float) -> None:
    # Logits near 1e4 are multiples of 2^-10 in float32, so these are exact. lse, their size, has steps of 1e-3: made
    # from z - lse, log-probs were 5e-4 off and probabilities in the backward pass as much.
    generator = torch.Generator().manual_seed(0)
    small = (torch.randn(60, 40, generator=generator) * 2**10).round() / 2**10
    targets = torch.randint(0, 40, (60,), generator=generator)
    exact = small.double().requires_grad_()
    near = (small + level).requires_grad_()
    assert torch.equal((near.detach().double() - level), small.double())
    ours = from_logits(near, targets, statistics=ALL)
    truth = from_logits(exact, targets, statistics=ALL)
    for name, value in ours.items():
        assert (value.double() - truth[name]).abs().max() < 2e-6, name
        pair = [
            torch.autograd.grad(stats[name].sum(), leaf, retain_graph=True, allow_unused=True)[0]
            for stats, leaf in ((ours, near), (truth, exact))
        ]
        if pair[0] is not None:
            assert (pair[0].double() - pair[1]).abs().max() < 2e-6, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("barred", [slice(0, 64), slice(64, 200), slice(10, 20), slice(0, 199)])
def test_an_impossible_token_is_a_token_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, barred: slice
) -> None:
    """Logits of -inf: whole tiles of them first, last and between, against the vocabulary without them."""
    small_tiles(monkeypatch, 64 * 64)
    hidden, weight, bias, _ = case(rows=70, width=8, vocabulary=200, dtype=dtype)
    there = torch.ones(200, dtype=torch.bool)
    there[barred] = False
    left = there.nonzero().squeeze(1)
    among = torch.randint(0, len(left), (70,), generator=torch.Generator().manual_seed(1))
    masked = bias.detach().masked_fill(~there, -torch.inf).requires_grad_()
    names = tuple(name for name in ALL if name != "top_p_entropy@2") if len(left) == 1 else ALL
    for chosen in ((), ("sum_p2_logp_h",), names):
        ours = token_stats(hidden, weight, left[among], bias=masked, statistics=chosen, temperature=0.7)
        alone = [hidden, weight[left], bias[left]]
        theirs = token_stats(*alone[:2], among, bias=alone[2], statistics=chosen, temperature=0.7)
        tolerance = 1e-12 if dtype == torch.float64 else 2e-5  # log-probs here reach -20
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance)
            if not value.requires_grad:
                continue
            one, other = (
                torch.autograd.grad(stats[name].sum(), leaves, retain_graph=True)
                for stats, leaves in ((ours, (hidden, weight, masked)), (theirs, (hidden, weight, bias)))
            )
            for mine, yours in zip(one, other, strict=True):
                torch.testing.assert_close(mine, yours, rtol=tolerance, atol=10 * tolerance)
            assert not one[1][~there].any() and not one[2][~there].any()


def test_an_impossible_target_has_the_log_prob_it_has_and_leaves_everything_else_finite() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    stats = from_logits(logits, torch.tensor([1]), statistics=ALL)
    assert stats.pop("logprobs").item() == stats.pop("tempered_logprobs@1.25").item() == -torch.inf
    assert stats["entropy"].item() == pytest.approx(math.log(1 + math.e) - math.e / (1 + math.e), abs=1e-12)
    for name, value in stats.items():
        assert value.isfinite().all(), name
        if value.requires_grad:
            assert torch.autograd.grad(value.sum(), logits, retain_graph=True)[0].isfinite().all(), name


def test_unknown_statistic_is_refused() -> None:
    hidden, weight, _, targets = case()
    with pytest.raises(KeyError, match="no_such"):
        token_stats(hidden, weight, targets, statistics=("no_such",))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_what_the_cpu_gives(dtype: torch.dtype) -> None:
    hidden, weight, bias, targets = case(rows=200, width=32, vocabulary=300, dtype=dtype)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [leaf.detach().to(device).requires_grad_() for leaf in (hidden, weight, bias)]
        stats = token_stats(*leaves[:2], targets.to(device), bias=leaves[2], statistics=ALL, chunk=64)
        total = sum(value.sum() for value in stats.values())
        results.append([value.detach().cpu() for value in (*stats.values(), *torch.autograd.grad(total, leaves))])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05  # of numbers up to about 40
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [0, 7, 400])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_plain_statistics_are_the_same_in_value_and_have_a_forward_mode(rows: int, temperature: float) -> None:
    hidden, weight, bias, targets = case(rows=rows)
    inputs = [value.detach() for value in (hidden, weight, bias)]
    options: Any = {"temperature": temperature, "statistics": ALL}
    expected = token_stats(hidden, weight, targets, bias=bias, **options)
    found = plain_token_stats(inputs[0], inputs[1], targets, bias=inputs[2], **options)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-9, atol=1e-11)
    along = [torch.randn_like(value) for value in inputs]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(value, tangent) for value, tangent in zip(inputs, along, strict=True)]
        result = plain_token_stats(duals[0], duals[1], targets, bias=duals[2], **options)
        slopes = {name: forward_ad.unpack_dual(value).tangent for name, value in result.items()}
    for name, value in expected.items():  # the sum over rows, by the tiled pass's own backward
        if not value.requires_grad or not rows:
            continue
        gradients = torch.autograd.grad(value.sum(), (hidden, weight, bias), retain_graph=True, allow_unused=True)
        backward = sum(float((g * tangent).sum()) for g, tangent in zip(gradients, along, strict=True) if g is not None)
        slope = slopes[name]
        assert (0.0 if slope is None else float(slope.sum())) == pytest.approx(backward, rel=1e-8, abs=1e-9), name
