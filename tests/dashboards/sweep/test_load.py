"""Studies as frames: nothing dropped, newest run of a signature, both stores alike, no file made by reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fake_study import FakeSpec, curves, signature_of, write_study
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from dashboards.store.client import ClientStore
from dashboards.store.open import open_store
from dashboards.sweep.artifacts import load_provenance, load_reliability, load_samples, table_records
from dashboards.sweep.load import SweepData, build_sweep, find_parent, list_sweeps, load_sweep
from dashboards.sweep.summary import cell_finals, final_table, hypothesis_result, level_rows

SMALL = FakeSpec(study="small", levels=("0.2", "0.5"), seeds=2, steps=3)


def test_every_cell_is_a_row_in_level_order(sweep: SweepData) -> None:
    assert list(sweep.cells["level"]) == ["0.2"] * 3 + ["0.28"] * 3 + ["0.4"] * 3 + ["0.5"] * 3
    assert list(sweep.cells["seed"]) == [0, 1, 2] * 4
    assert set(sweep.cells["state"]) == {"COMPLETED"} and set(sweep.cells["last_step"]) == {19.0}


def test_metrics_are_tidy_and_equal_what_was_logged(sweep: SweepData) -> None:
    expected = curves(FakeSpec(steps=20), 2, 1)[7]["policy/entropy"]
    rows = sweep.metrics.query("metric == 'policy/entropy' and level == '0.4' and seed == 1 and step == 7")
    assert rows["value"].tolist() == [pytest.approx(expected, abs=1e-12)]


def test_cells_that_did_not_complete_are_listed_with_their_state(broken: SweepData) -> None:
    states = {(row.level, row.seed): row.state for row in broken.cells.itertuples() if row.state != "COMPLETED"}
    assert states == {("0.28", 1): "FAILED", ("0.4", 2): "MISSING", ("0.5", 0): "RUNNING"}
    failed = broken.cells[broken.cells["state"] == "FAILED"].iloc[0]
    assert "non-finite loss" in failed["message"]


def test_only_completed_cells_have_final_values(broken: SweepData) -> None:
    table = final_table(broken, "policy/entropy")
    assert table.isna().sum().sum() == 3 and table.notna().sum().sum() == 9


def test_final_is_the_mean_of_the_last_five_steps_and_the_last_evaluation(sweep: SweepData) -> None:
    history = curves(FakeSpec(steps=20), 0, 0)
    finals = cell_finals(sweep, "policy/entropy").query("level == '0.2' and seed == 0")["value"].item()
    assert finals == pytest.approx(sum(step["policy/entropy"] for step in history[-5:]) / 5, abs=1e-12)
    last = cell_finals(sweep, "eval/heldout/avg_at_16").query("level == '0.2' and seed == 0")["value"].item()
    assert last == pytest.approx(history[-1]["eval/heldout/avg_at_16"], abs=1e-12)


def test_settings_are_what_all_cells_share(sweep: SweepData) -> None:
    assert sweep.settings["steps"] == "20" and "seed" not in sweep.settings
    assert sweep.settings["hardware.device"] == "cpu"
    assert not any(key.startswith("tracking") for key in sweep.settings)
    assert sweep.provenance["git revision"] == "3f2a9c1"


def test_study_is_found_by_name_run_id_run_name_and_the_beginning_of_its_name(sweep: SweepData, study_uri: str) -> None:
    for name in ("clip_high", sweep.parent.run_id, "clip_high sweep", "clip"):
        assert load_sweep(study_uri, name).parent.run_id == sweep.parent.run_id


def test_an_unknown_study_names_the_nearest_and_all_others(study_uri: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'clip_high'\? Available: broken, clip_high"):
        load_sweep(study_uri, "clip_hgih")


def test_reading_a_missing_store_is_an_error_and_creates_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "outputs" / "mlflow.db"
    with pytest.raises(ValueError, match="there is no MLflow store at"):
        load_sweep(f"sqlite:///{missing}", "clip_high")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"not a database, but long enough to be taken for one" * 30)
    with pytest.raises(ValueError, match="cannot be read as an MLflow store"):
        open_store(f"sqlite:///{file}")


def test_a_server_that_is_down_is_one_sentence() -> None:
    # Port 9 of the loopback address: nothing listens there, so the connection is refused at once.
    with pytest.raises(ValueError, match=r"the MLflow store at http://127\.0\.0\.1:9 does not answer"):
        load_sweep("http://127.0.0.1:9", "clip_high")


def test_an_empty_store_says_so() -> None:
    with pytest.raises(ValueError, match="holds no sweep yet"):
        find_parent([], "x", "sqlite:///x.db")


@pytest.fixture(scope="module")
def small(new_store: Callable[[], Path]) -> tuple[str, MlflowClient]:
    uri = write_study(new_store(), SMALL)
    return uri, MlflowClient(tracking_uri=uri)


def test_the_newest_run_of_a_signature_counts_wherever_it_hangs(small: tuple[str, MlflowClient]) -> None:
    uri, client = small
    old = load_sweep(uri, "small")
    signature = signature_of(SMALL, 0, 0)
    experiment = old.parent.experiment_id
    run = client.create_run(experiment, tags={"kind": "cell", "signature": signature, "state": "FAILED"})
    client.log_metric(run.info.run_id, "policy/entropy", 9.0, step=0)
    new = load_sweep(uri, "small")
    assert new.cells.set_index("signature").loc[signature, "state"] == "FAILED"
    client.delete_run(run.info.run_id)
    pd.testing.assert_frame_equal(load_sweep(uri, "small").metrics, old.metrics)


def test_a_step_logged_twice_keeps_the_later_point(small: tuple[str, MlflowClient]) -> None:
    uri, client = small
    run_id = load_sweep(uri, "small").runs[signature_of(SMALL, 1, 1)].run_id
    client.log_batch(run_id, metrics=[Metric("extra", 1.0, 1000, 0), Metric("extra", 2.0, 2000, 0)])
    rows = load_sweep(uri, "small").metrics.query("metric == 'extra'")
    assert rows["value"].tolist() == [2.0]


def test_nan_and_infinity_become_nan(small: tuple[str, MlflowClient]) -> None:
    uri, client = small
    run_id = load_sweep(uri, "small").runs[signature_of(SMALL, 1, 0)].run_id
    client.log_batch(
        run_id, metrics=[Metric("odd", float("nan"), 1, 0), Metric("odd", float("inf"), 1, 1), Metric("odd", 3.0, 1, 2)]
    )
    values = load_sweep(uri, "small").metrics.query("metric == 'odd'")["value"]
    assert values.isna().tolist() == [True, True, False]
    assert cell_finals(load_sweep(uri, "small"), "odd")["value"].tolist() == [3.0]


def test_sql_and_client_read_the_same_study(small: tuple[str, MlflowClient]) -> None:
    uri, _ = small
    direct = load_sweep(uri, "small")
    store = ClientStore.open(uri)
    parent = find_parent(list_sweeps(store), "small", uri)
    through_client = build_sweep(store, uri, parent)
    pd.testing.assert_frame_equal(direct.cells, through_client.cells)
    pd.testing.assert_frame_equal(direct.metrics, through_client.metrics)
    assert direct.settings == through_client.settings and direct.parent == through_client.parent


def test_a_run_that_mlflow_knows_has_ended_is_not_running(small: tuple[str, MlflowClient]) -> None:
    uri, client = small
    run_id = load_sweep(uri, "small").runs[signature_of(SMALL, 0, 1)].run_id
    client.set_tag(run_id, "state", "RUNNING")
    client.set_terminated(run_id, "KILLED")
    assert load_sweep(uri, "small").cells.set_index("run_id").loc[run_id, "state"] == "CANCELLED"


def test_an_absent_sweep_json_is_one_sentence(new_store: Callable[[], Path]) -> None:
    folder = new_store()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("rlvr", (folder / "artifacts").as_uri())
    run = client.create_run(experiment, tags={"kind": "sweep", "study": "empty"})
    with pytest.raises(ValueError, match=r"has no artifact sweep\.json"):
        load_sweep(uri, "empty")
    client.log_text(run.info.run_id, "{broken", "sweep.json")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_sweep(uri, "empty")


def test_a_study_nobody_has_run_yet_still_loads(new_store: Callable[[], Path]) -> None:
    spec = FakeSpec(study="queued", levels=("a", "b"), seeds=1, states={(0, 0): "MISSING", (1, 0): "MISSING"})
    sweep = load_sweep(write_study(new_store(), spec), "queued")
    assert list(sweep.cells["state"]) == ["MISSING", "MISSING"] and sweep.metrics.empty
    assert [row.completed for row in level_rows(sweep)] == [0, 0]
    assert "no completed cell" in hypothesis_result(sweep).sentence


def test_samples_and_reliability_are_tidy(sweep: SweepData) -> None:
    samples, points = load_samples(sweep), load_reliability(sweep)
    assert set(samples["step"]) == {0, 10, 19} and len(samples) == 12 * 9
    assert len(points) == 12 * 2 * 2 * 8 and set(points["suite"]) == {"heldout", "ood"}


def test_provenance_is_short_facts(sweep: SweepData) -> None:
    facts = load_provenance(sweep)
    assert facts["packages"] == "torch 2.13.0+cpu, vllm 0.32.0" and facts["uncommitted changes"] == "yes"
    assert facts["hardware"] == "cpu some CPU, cores 2" and "diff" not in str(facts)


def test_tables_come_in_two_shapes() -> None:
    assert table_records({"columns": ["a", "b"], "data": [[1, 2]]}) == [{"a": 1, "b": 2}]
    assert table_records([{"a": 1}]) == [{"a": 1}]
    with pytest.raises(ValueError, match="neither a table"):
        table_records("text")
