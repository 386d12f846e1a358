"""Defaults under a YAML, one form for numbers, unknown keys."""

from __future__ import annotations

from sweeps.compose.components import normalised, unknown_keys, with_defaults

OPTIM = "trainer.contract.config.OptimConfig"


def test_defaults_go_under_what_is_stated_at_any_depth() -> None:
    filled = with_defaults({"a": {"_target_": OPTIM, "lr": 0.5}, "b": [{"_target_": OPTIM}]})
    assert filled["a"]["lr"] == 0.5
    assert filled["a"]["epochs"] == 1
    assert filled["b"][0]["epochs"] == 1


def test_targets_of_hydra_are_left_alone() -> None:
    node = {"_target_": "hydra_plugins.rlvr.sweeper.GridSweeper", "params": {}}
    assert with_defaults(node) == node


def test_a_whole_number_becomes_a_float_only_where_the_default_is_one() -> None:
    plain = normalised({"_target_": OPTIM, "lr": 1, "epochs": 2, "max_grad_norm": True})
    assert (type(plain["lr"]), type(plain["epochs"])) == (float, int)
    assert plain["max_grad_norm"] is True, "a truth value is not a number: the trainer refuses it"


def test_an_unknown_key_is_named_with_its_nearest() -> None:
    (sentence,) = unknown_keys({"optim": {"_target_": OPTIM, "epoch": 2}})
    assert sentence == "optim.epoch is not a setting of OptimConfig: did you mean 'epochs'?"
