"""A record that was cut, deleted or damaged since its checkpoint: the run goes back to where it reaches, or refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import record, steps, write_run

from trainer.storage.record import RunFolder

KEPT = {"checkpoint.keep": 10}
KILL = (("trainer.update.gradient:Learner.step", 4, "kill"),)
"""In the fourth step: checkpoints are at 1, 2 and 3."""


def cut_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def cut_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_a_digit(path: Path) -> None:
    """In the last line, so that an older checkpoint is sound."""
    text = path.read_bytes()
    at = max(text.rfind(digit) for digit in (b"1", b"2"))
    path.write_bytes(text[:at] + b"7" + text[at + 1 :])


FILES = ("metrics.jsonl", "timings.jsonl", "samples.jsonl", "reliability.jsonl")
QUICK = (("metrics.jsonl", cut_line), ("timings.jsonl", change_a_digit), ("samples.jsonl", cut_byte))
HARMS = [
    pytest.param(name, harm, marks=[pytest.mark.slow] * ((name, harm) not in QUICK))
    for name in FILES
    for harm in (cut_line, cut_byte, change_a_digit)
]


@pytest.mark.parametrize(("name", "harm"), HARMS)
def test_a_run_goes_back_to_the_checkpoint_that_its_record_reaches(
    name: str, harm, trainer, undisturbed: RunFolder, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, KEPT)
    assert trainer(folder, faults=KILL) == -9
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000001", "step-000002", "step-000003"]
    harm(folder.path / name)
    assert trainer(folder) == 0, trainer.log.read_text()
    assert f"is passed over for the one before it: {folder.path / name}" in trainer.log.read_text()
    assert steps(folder) == [0, 1, 2, 3, 4] and record(folder) == record(undisturbed)


@pytest.mark.parametrize("name", FILES[:1])
def test_a_record_that_reaches_no_checkpoint_is_refused_in_a_sentence(
    name: str, trainer, undisturbed: RunFolder, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, KEPT)
    assert trainer(folder, faults=KILL) == -9
    kept = (folder.path / name).read_bytes()
    (folder.path / name).unlink()
    before = {path: path.read_bytes() for path in folder.path.glob("*.jsonl")}
    assert trainer(folder) == 2
    said = trainer.log.read_text()
    assert f"{folder.path / name} is missing or empty, and no checkpoint is from before that: restore" in said
    assert "Traceback" not in said and {path: path.read_bytes() for path in folder.path.glob("*.jsonl")} == before
    (folder.path / name).write_bytes(kept)
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "attempts", "status.json", "mirror.json", ".lock"])
def test_a_file_where_a_folder_should_be_and_the_reverse_are_one_sentence(name: str, trainer, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    place = folder.path / name
    place.touch() if name in ("checkpoints", "attempts") else place.mkdir()
    assert trainer(folder) in (1, 2)
    said = [line for line in trainer.log.read_text().splitlines() if not line.startswith("warning:")]
    assert len(said) == 1 and str(place) in said[0], said
