"""From composed configurations to signed cells; what cannot be compared is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep, sweep_name
from trainer.contract.settings import ConfigError

Make = Callable[..., list[Cell]]


def test_what_cannot_move_a_curve_does_not_change_the_signature(make_cells: Make) -> None:
    (plain,) = make_cells(["seed=0"])
    (other,) = make_cells(["seed=0", "tracking=none", "launcher.slots=3", "checkpoint.every=1"])
    assert plain.signature == other.signature


@pytest.mark.parametrize("change", ["optim.lr=0.5", "hardware.mixed_precision=bf16", "hardware.num_threads=2"])
def test_what_moves_a_byte_of_it_changes_the_signature(make_cells: Make, change: str) -> None:
    (plain,), (moved,) = make_cells([]), make_cells([change])
    assert plain.signature != moved.signature


def test_precisions_can_be_swept(make_cells: Make) -> None:
    made = make_cells(["hardware.mixed_precision=no"], ["hardware.mixed_precision=bf16"])
    assert [cell.level.name for cell in made] == ["no", "bf16"]
    assert len({cell.signature for cell in made}) == 2


def test_one_number_written_twice_is_one_experiment(make_cells: Make) -> None:
    assert make_cells(["optim.lr=1"])[0].signature == make_cells(["optim.lr=1.0"])[0].signature


def test_the_frozen_configuration_holds_absolute_paths_and_nothing_of_this_invocation(make_cells: Make) -> None:
    (cell,) = make_cells(["plan=true", "retry=all"])
    assert not {"plan", "retry", "hydra"} & set(cell.config)
    assert Path(cell.config["output"]).is_absolute()
    assert cell.config["tracking"]["uri"] == f"sqlite:///{cell.config['output']}/mlflow.db"


def test_cells_that_are_one_experiment_are_refused(make_cells: Make) -> None:
    with pytest.raises(ConfigError, match="are the same experiment"):
        make_cells(["checkpoint.every=1"], ["checkpoint.every=2"])


def test_what_belongs_to_the_whole_sweep_cannot_be_swept(make_cells: Make) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=.* cannot differ between the cells"):
        make_cells(["tracking=none", "seed=0"], ["tracking=mlflow", "seed=1"])


@pytest.mark.parametrize(
    "batch", [("clip_regime=baseline", "clip_regime=higher"), ("surrogate.clip_low=0.1", "surrogate.clip_low=0.3")]
)
def test_thresholds_are_not_swept_while_every_ratio_is_one(make_cells: Make, batch: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no threshold acts: set optim\.updates_per_rollout=4"):
        make_cells(*[[override] for override in batch])
    assert len(make_cells(*[[override, "optim.updates_per_rollout=2"] for override in batch])) == 2
    assert len(make_cells(*[[override, "optim.epochs=2"] for override in batch])) == 2


def test_bad_seeds_and_steps_are_all_named_at_once(make_cells: Make) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_cells(["seed=-1", "steps=half"])
    assert str(refusal.value).splitlines() == [
        "seed=-1 cannot be used: give a whole number, at least 0",
        "steps='half' cannot be used: give a whole number, at least 0, at most 10000000",
    ]


def name(made: list[Cell], multirun: bool = True) -> str:
    return sweep_name(made, multirun)


def test_a_study_is_called_after_its_factor_or_what_is_swept(make_cells: Make) -> None:
    factor = ["factor=off_policy_updates"]
    assert (
        name(make_cells([*factor, "optim.updates_per_rollout=1"], [*factor, "optim.updates_per_rollout=2"]))
        == "off_policy_updates"
    )
    assert (
        name(make_cells(["optim.lr=1", "rollout.group_size=4"], ["optim.lr=2", "rollout.group_size=8"]))
        == "lr-group_size"
    )
    assert name(make_cells(["seed=1"], ["seed=2"])) == "seed"
    assert name(make_cells([]), multirun=False) == "single"


def test_another_base_is_another_study(make_cells: Make) -> None:
    factor = ["factor=off_policy_updates", "checkpoint.every=2", "launcher.slots=2"]
    made = make_cells(
        [*factor, "optim.updates_per_rollout=1", "steps=9"], [*factor, "optim.updates_per_rollout=2", "steps=9"]
    )
    assert name(made) == "off_policy_updates-steps-9"


def test_a_very_long_name_is_cut_without_meeting_another(make_cells: Make) -> None:
    long = [f"task.num_prompts={number}" for number in (1, 2)]
    names = {
        name(make_cells(["model.path=" + 100 * "x", prompts, "seed=1"], ["model.path=" + 100 * "x", prompts, "seed=2"]))
        for prompts in long
    }
    assert len(names) == 2
    assert max(map(len, names)) <= 40


@pytest.mark.parametrize("given", ["../up", "a/b", ".hidden", "x" * 300, "a\nb"])
def test_a_name_that_would_leave_the_output_folder_is_refused(make_cells: Make, given: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.name="):
        name(make_cells([f"study.name='{given}'"]))


def test_the_document_lists_cells_levels_and_what_is_held(make_cells: Make, tmp_path: Path) -> None:
    made = make_cells(*[["factor=clip_high", f"surrogate.clip_high={clip}", "seed=5"] for clip in (0.2, 0.4)])
    document = Sweep(name="s", command="c", output=tmp_path, cells=tuple(made)).document()
    assert document["factor"]["held"] == {"optim.updates_per_rollout": 8, "surrogate.clip_low": 0.2}
    assert [(cell["level"], cell["level_index"], cell["seed"]) for cell in document["cells"]] == [
        ("0.2", 0, 5),
        ("0.4", 1, 5),
    ]
