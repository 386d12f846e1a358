"""Every shipped search composes at both ends of every range, and the trainer accepts all of it."""

from __future__ import annotations

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from sweeps.compose.compose import CONF, enable_plugins, groups
from sweeps.grid.cells import Cell
from sweeps.plan.check import start_check
from sweeps.search.build import build, check_cells
from sweeps.search.confirm import confirmation_check_cell

SHIPPED = ["adaptive_entropy", "aer", "clip", "method", "par", "qae", "siren", "skywork", "steer"]


def probes(name: str) -> list[Cell]:
    enable_plugins()
    words = [f"search={name}", "engine=transformers"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
        master = hydra.compose("config", words, return_hydra_config=True)
        context = build(GlobalHydra.instance().hydra.config_loader, master, words)
        return [*check_cells(context), *confirmation_check_cell(context)]


@pytest.mark.slow
def test_the_trainer_accepts_both_ends_of_every_range() -> None:
    assert groups()["search"] == SHIPPED
    cells = [cell for name in SHIPPED for cell in probes(name)]
    assert len(cells) > 60
    start_check(cells, ("-m", "trainer")).result()


def test_the_search_of_methods_is_conditional_and_has_several_objectives() -> None:
    enable_plugins()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
        search = hydra.compose("config", ["search=method"]).search
    assert [node.metric for node in search.objectives] == [
        "eval/heldout/pass_at_1",
        "eval/heldout/pass_at_16",
        "policy/entropy",
    ]
    assert all(node.when.method for key, node in search.space.items() if key != "method")
