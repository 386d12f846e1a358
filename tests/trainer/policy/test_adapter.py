"""A LoRA adapter: it starts as the model itself, only it moves, and what is sampled from and stored is the merged
model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import instruct_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError
from trainer.policy.adapter import adapter_files, adapter_weights, add_adapter, in_place, merged, resume, state
from trainer.policy.model import load_model

IDS = torch.tensor([[1, 7, 9, 11, 8, 30, 31]])
EXACT = 1e-12
"""Of logits of size 1 in float64: products are summed in another order, and nothing else differs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return instruct_model(tmp_path_factory.mktemp("base") / "model", chat=None)


def adapted(folder: Path, rank: int = 3, **settings: Any) -> nn.Module:
    """The model in float64 with an adapter whose B has moved."""
    config = ModelConfig(path=str(folder), lora_rank=rank, lora_alpha=6.0, **settings)
    model = add_adapter(load_model(config).double(), config, seed=5)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapter_weights(model).items():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return model


def exact(model: nn.Module) -> nn.Module:
    """Norms in float64 too: transformers computes them in float32 whatever the model has."""
    for block in list(model.modules()):
        for name, norm in list(block.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                wide = nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=torch.float64)  # type: ignore[arg-type]
                wide.weight.data = norm.weight.data.double()  # type: ignore[union-attr]
                setattr(block, name, wide)
    return model


def logits(model: Any) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def test_it_starts_as_the_model_itself_and_only_it_is_trained(folder: Path) -> None:
    plain = load_model(ModelConfig(path=str(folder)))
    config = ModelConfig(path=str(folder), lora_rank=4)
    model = add_adapter(load_model(config), config, seed=0)
    assert torch.equal(logits(model), logits(plain))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == adapter_weights(model).keys()
    # 2 layers x 7 projections x (A, B); 16 -> 16 twice over q, k, v, o, 16 -> 32 twice, 32 -> 16: 4 (4 * 32 + 3 * 48).
    assert len(trained) == 28
    assert sum(weight.numel() for weight in adapter_weights(model).values()) == 2 * 4 * (4 * 32 + 3 * 48)
    untouched = load_model(ModelConfig(path=str(folder)))
    assert add_adapter(untouched, ModelConfig(path=str(folder)), seed=0) is untouched and state(untouched) == {}


def test_it_is_drawn_from_its_seed_and_nothing_else_is(folder: Path) -> None:
    config = ModelConfig(path=str(folder), lora_rank=4)
    before = torch.get_rng_state()
    one, same, other = (adapter_weights(add_adapter(load_model(config), config, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_merged_model_computes_the_same(folder: Path) -> None:
    model = exact(adapted(folder))
    plain: Any = exact(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))
    assert (logits(plain) - logits(model)).abs().max() > 1e-2
    weights = dict(merged(model))
    assert weights.keys() == plain.state_dict().keys()
    plain.load_state_dict(weights)
    torch.testing.assert_close(logits(plain), logits(model), rtol=EXACT, atol=EXACT)
    # (alpha / r) B A by hand, alpha / r = 6 / 3.
    layer = model.base_model.layers[0].mlp.up_proj  # type: ignore[union-attr, index]
    expected = layer.base_layer.weight + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(weights["model.layers.0.mlp.up_proj.weight"], expected, rtol=EXACT, atol=EXACT)


def test_its_gradient_is_that_of_finite_differences(folder: Path) -> None:
    model = exact(adapted(folder, rank=2, lora_targets=("q_proj", "down_proj")))
    model.requires_grad_(False)
    names = [name for name in adapter_weights(model) if ".layers.1." in name]
    parameters = {name: weight.requires_grad_() for name, weight in model.named_parameters() if name in names}
    assert len(parameters) == 4

    def loss(*weights: Tensor) -> Tensor:
        output = torch.func.functional_call(model, dict(zip(parameters, weights, strict=True)), (), {"input_ids": IDS})
        return output.logits.log_softmax(dim=-1)[0, :, 5].sum()

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()), fast_mode=True)
    loss(*parameters.values()).backward()
    assert all(weight.grad is None for name, weight in model.named_parameters() if name not in parameters)


def test_other_adapter_weights_stand_in_for_a_while(folder: Path) -> None:
    model = adapted(folder)
    own = logits(model)
    zero = {name: torch.zeros_like(weight) for name, weight in adapter_weights(model).items()}
    with in_place(model, zero):
        base = logits(model)
    assert torch.equal(logits(model), own)
    assert torch.equal(base, logits(load_model(ModelConfig(path=str(folder))).double()))


def test_peft_reads_the_adapter_and_a_checkpoint_brings_it_back(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = exact(adapted(folder, lora_targets=("k_proj", "gate_proj")))
    for name, content in adapter_files(model, str(folder)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    base = exact(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))
    read = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(read), logits(model), rtol=EXACT, atol=EXACT)
    fresh = exact(adapted(folder, lora_targets=("k_proj", "gate_proj")))
    with torch.no_grad():
        for weight in adapter_weights(fresh).values():
            weight.zero_()
    resume(fresh, dict(merged(model)), state(model))
    assert torch.equal(logits(fresh), logits(model))
    changed = dict(merged(model)) | {"model.norm.weight": torch.zeros(16, dtype=torch.float64)}
    with pytest.raises(ConfigError, match=r"the base model has changed .*model\.norm\.weight"):
        resume(fresh, changed, state(model))


def test_what_cannot_be_adapted_is_refused(folder: Path) -> None:
    config = ModelConfig(path=str(folder), lora_rank=2, lora_targets=("q_prj",))
    with pytest.raises(ConfigError, match=r"model\.lora_targets='q_prj' cannot be used: .*down_proj, gate_proj"):
        add_adapter(load_model(config), config, seed=0)
    with pytest.raises(ConfigError, match=r"model\.lora_dropout=0\.1 cannot be used: .*two policies"):
        ModelConfig(lora_dropout=0.1)


def test_blocks_are_recomputed_when_asked_and_the_gradient_is_the_same(folder: Path) -> None:
    gradients, calls = [], []
    for asked in (False, True):
        model: Any = load_model(ModelConfig(path=str(folder), gradient_checkpointing=asked))
        seen: list[int] = []
        # Before, because recomputing stops as soon as nothing is missing any more.
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        logits(model).square().sum().backward()
        calls.append(len(seen))
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert calls == [1, 2]
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
