"""The page of a search: whole at every stage of a search, inert, made by one command, logged under the search's run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from browser import elements, in_a_browser, opened
from fake_search import AVG, ENTROPY, FakeSearch, FakeTrial, front_search, single_search, write_search
from fake_study import EVERYWHERE
from mlflow.tracking import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from dashboards.__main__ import main
from dashboards.page.verdicts import load_verdicts
from dashboards.search.confirm import load_confirmation
from dashboards.search.figures import history, intermediate
from dashboards.search.figures_space import slice_plot
from dashboards.search.load import load_search
from dashboards.search.report import duration, heading, report_search
from dashboards.search.sections import search_sections


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search of one objective."""
    return write_search(tmp_path_factory.mktemp("single"), single_search())


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    (finished / "tuned.yaml").write_text("# @package _global_\nmethod: tuned/adaptive_entropy\n")
    return report_search(finished).read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a conditional search of three objectives."""
    return report_search(write_search(tmp_path_factory.mktemp("several"), front_search()))


def test_everything_a_reader_gets_is_on_the_page(page: str) -> None:
    expected = (
        "Tuned is better", "Best configuration", "method=tuned/adaptive_entropy", "controller.skywork.target=",
        "Confirmation on fresh seeds", "The winner\u2019s curse", "avg@16, out-of-domain", "never looked at", "History",
        "What mattered", "One parameter at a time", "All parameters together", "Pruning", "When the trials ran",
        "below the median of earlier trials at step 10", "the loss is not finite at step 12", "3f2a9c1",
        "optuna-dashboard", "study.journal", "python sweep.py -m search=adaptive_entropy", "(planned \u2212 run)",
        "median", "Fresh seeds:\n100, 101, 102, 103, 104, 105",
    )  # fmt: skip
    assert [words for words in expected if words not in page] == []
    assert page.count('class="plot"') == 10


def test_the_page_loads_nothing_and_links_to_runs_alone(page: str) -> None:
    found = elements(page)
    assert not [tag for tag, attributes in found if "src" in attributes]
    assert not [tag for tag, _ in found if tag in ("link", "iframe", "object", "embed", "img")]
    links = {attributes["href"] or "" for _, attributes in found if "href" in attributes}
    assert links and all(re.fullmatch(r"\.\./\.\./\.\./runs/[0-9a-f]+/", link) for link in links)


def test_the_summary_has_the_numbers_of_the_page(finished: Path, page: str) -> None:
    document = json.loads((finished / "report" / "summary.json").read_text())
    assert document["trials"] == {"asked": 24, "complete": 14, "pruned": 7, "failed": 2, "running": 1, "waiting": 0}
    # Trials 6, 8, 14 and 16 stopped at step 20, trials 9, 17 and 19 at step 10, all of 80: 4 x 60 + 3 x 70.
    assert document["pruning"]["steps_saved"] == 450 and document["pruning"]["seconds_saved"] == pytest.approx(945.0)
    assert "<b>450</b>" in page
    main, unseen = document["confirmation"]["comparisons"]
    assert (main["metric"], main["unseen"], unseen["unseen"]) == (AVG, False, True)
    assert (
        main["selection_bias"] == pytest.approx(main["reported"] - main["tuned"]) and unseen["selection_bias"] is None
    )
    assert document["best_trials"]["tuned"]["trial"] == main["trial"]


def test_parts_of_a_section_by_objective_and_pair(several: Path) -> None:
    search = load_search(several.parent.parent)
    sections = {section.id: section for section in search_sections(search, load_confirmation(search))}
    assert len(sections["front"].panels) == 3 and len(sections["history"].panels) == 3
    assert len(sections["slices"].panels) == 12  # 4 parameters x 3 objectives
    assert "several objectives Optuna does not prune by value" in sections["pruning"].intro
    (figure,) = [panel.figure for panel in sections["parallel"].panels]
    assert len(figure.data) == len(search.complete) == 26
    assert list(figure.layout.xaxis.ticktext)[:2] == ["method", "siren.coef (log)"]
    # Trial 0 is plain GRPO: it has none of the constants, and its line passes below their axes.
    positions_on_axis = next(trace.y for trace in figure.data if "trial 0<" in trace.text[0])
    assert positions_on_axis[0] == 0.0 and set(positions_on_axis[1:4]) == {-0.13}


def test_history_gives_every_state_its_own_mark(finished: Path) -> None:
    search = load_search(finished)
    figure = history(search)
    assert figure is not None
    marks = {trace.name: trace for trace in figure.data}
    assert list(marks) == ["best so far", "complete", "pruned", "failed", "running"]
    assert len({trace.marker.symbol for trace in figure.data[1:]}) == 4
    # Two trials failed without a value: they stand below every other point.
    lowest = min(min(trace.y) for name, trace in marks.items() if name != "failed")
    assert len(marks["failed"].y) == 2 and max(marks["failed"].y) < lowest
    assert max(marks["complete"].y) == marks["best so far"].y[-1] == max(t.values[0] for t in search.complete)


def test_pruned_lines_end_in_a_cross_where_they_were_stopped(finished: Path) -> None:
    search = load_search(finished)
    figure = intermediate(search)
    assert figure is not None
    pruned = [trace for trace in figure.data if trace.name == "pruned"]
    assert sorted(trace.x[-1] for trace in pruned) == [10, 10, 10, 20, 20, 20, 20]
    assert all(
        trace.marker.symbol == "x" and list(trace.marker.size)[-1] > 0 == trace.marker.size[0] for trace in pruned
    )
    assert figure.data[-1].name == "best"  # on top of the others


def test_a_slice_spans_the_space_on_its_own_scale(finished: Path) -> None:
    search = load_search(finished)
    figure = slice_plot(search, "controller.skywork.step", 0, ["controller.skywork.step"])
    assert figure is not None and figure.layout.xaxis.type == "log"
    # log10 of the bounds 1e-4 and 1e-1 with 6 % of their distance on both sides.
    assert list(figure.layout.xaxis.range) == pytest.approx([-4.18, -0.82])
    assert sum(len(trace.x) for trace in figure.data) == len(search.complete)


STAGES: dict[str, FakeSearch] = {
    "no trial": FakeSearch(),
    "one running": FakeSearch(trials=[FakeTrial(params={}, state=TrialState.RUNNING, steps_run=0)]),
    "one complete": FakeSearch(trials=[FakeTrial(params={"controller.skywork.target": 0.2}, values=[0.3])]),
    "two complete": FakeSearch(trials=[
        FakeTrial(params={"controller.skywork.target": 0.2}, values=[0.3]),
        FakeTrial(params={"controller.skywork.target": 0.3}, values=[0.3]),
    ]),
    "all pruned": FakeSearch(trials=[
        FakeTrial(params={"controller.skywork.step": 0.01}, state=TrialState.PRUNED, steps_run=0, seconds=0.0)
    ] * 3),
    "all failed": FakeSearch(trials=[FakeTrial(params={}, state=TrialState.FAIL, reason="killed")] * 3),
    "constant": FakeSearch(trials=[
        FakeTrial(params={"controller.skywork.target": 0.1 + i / 50, "controller.skywork.step": 10.0 ** -(1 + i / 3)},
                  values=[0.25], reported={0: 0.25}) for i in range(8)
    ]),
    "fixed parameter": FakeSearch(
        trials=[FakeTrial(params={"a": 1.0, "b": "x"}, values=[i / 7]) for i in range(6)],
        space={"a": FloatDistribution(1.0, 1.0), "b": CategoricalDistribution(["x"])},
    ),
    "several, none complete": FakeSearch(
        objectives=((AVG, "maximize"), (ENTROPY, "minimize")),
        trials=[FakeTrial(params={}, state=TrialState.PRUNED, values=[0.1, 0.2])],
    ),
    "confirmation begun": FakeSearch(
        trials=[FakeTrial(params={"controller.skywork.target": 0.2}, values=[0.3])],
        confirm={"untuned": [{}, {}], "tuned": [{}, {}]}, confirmed={"tuned": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_search_has_a_page_at_every_stage(stage: str, tmp_path: Path) -> None:
    page = report_search(write_search(tmp_path, STAGES[stage])).read_text()
    assert "Read with care" in page and "All trials" in page
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", page, flags=re.S))
    sentences = {
        "no trial": "No trial has been started yet.", "one running": "No trial has completed with a value",
        "one complete": "1 completed trials: importances need at least 4.",
        "two complete": "2 completed trials", "all pruned": "No trial has completed", "all failed": "3 trials failed",
        "constant": "All completed trials have the same value", "fixed parameter": "Fewer than two parameters vary",
        "several, none complete": "there is no front yet",
        "confirmation begun": "4 of 4 runs of the confirmation have not completed.",
    }  # fmt: skip
    assert sentences[stage] in page


@pytest.mark.parametrize("sentence", ["of 24 trials have ended", "has not been started"])
def test_an_unfinished_search_says_what_is_missing(sentence: str, tmp_path: Path) -> None:
    spec = replace(single_search(), n_trials=30, confirm=None)
    page = report_search(write_search(tmp_path, spec)).read_text()
    assert sentence.replace("24", "30") in page


def hostile_search() -> FakeSearch:
    """Markup in every text that a search can bring."""
    key = f"controller.{EVERYWHERE}"
    space = {key: CategoricalDistribution(["a", EVERYWHERE]), "x": FloatDistribution(0, 1)}
    trials = [
        FakeTrial(params={key: ["a", EVERYWHERE][number % 2], "x": number / 10}, values=[number % 5, -number],
                  reason=EVERYWHERE)
        for number in range(8)
    ]  # fmt: skip
    pruned = FakeTrial(params={"x": 0.5}, state=TrialState.PRUNED, reason=EVERYWHERE, values=[0.0, 0.0])
    return FakeSearch(name="hostile",
                      objectives=((f"eval/{EVERYWHERE}/avg_at_4", "maximize"), (EVERYWHERE, "minimize")),
                      space=space, trials=[*trials, pruned])  # fmt: skip


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("kind", ["single", "several", "hostile"])
def test_a_browser_draws_every_figure_and_runs_nothing_else(
    kind: str, page: str, finished: Path, several: Path, tmp_path: Path
) -> None:
    if kind == "hostile":
        path = report_search(write_search(tmp_path, hostile_search()))
        assert 'onerror="document' not in path.read_text()
    else:
        source = several if kind == "several" else finished / "report" / "index.html"
        path = Path(shutil.copy(source, tmp_path))
    dom, problems = opened(path)
    drawn = re.search(r'data-ready="(\d+)"', dom)
    assert drawn is not None and int(drawn[1]) == dom.count('class="plot-container') >= 8
    assert "<title>pwned" not in dom and not re.search(r"<[^>\"]*\son\w+=", dom)
    assert problems == []


def test_the_command_writes_the_page_and_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_search(tmp_path / "outputs", STAGES["two complete"])
    monkeypatch.chdir(tmp_path)
    assert main(["search", "adaptive_entropy", "--summary"]) == 0
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["summary.json"]
    assert main(["search", str(folder)]) == 0
    assert (folder / "report" / "index.html").is_file()
    assert main(["search", "adaptive_entropy", "--folder", "outputs", "--output", "page.html"]) == 0
    assert (tmp_path / "page.html").stat().st_size > 1_000_000
    capsys.readouterr()
    assert main(["search", "other"]) == 2
    assert capsys.readouterr().err == "error: no search named 'other' in outputs/sweeps: there are adaptive_entropy\n"


def test_the_page_is_logged_and_the_report_command_knows_a_search(
    new_store: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_search(tmp_path, STAGES["two complete"])
    uri = f"sqlite:///{new_store() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("rlvr", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment, run_name=folder.name, tags={"kind": "sweep", "study": folder.name}).info.run_id
    client.log_text(run, (folder / "sweep.json").read_text(), "sweep.json")
    assert main(["report", folder.name, "--uri", uri, "--log"]) == 0
    assert f"report: {folder / 'report' / 'index.html'}" in capsys.readouterr().out
    assert {item.path for item in client.list_artifacts(run)} == {"report.html", "sweep.json"}
    with pytest.raises(ValueError, match="holds no sweep yet"):
        load_verdicts(uri)  # a search states no hypothesis
    with pytest.raises(ValueError, match="no study named 'constant'"):
        report_search(write_search(tmp_path / "b", replace(STAGES["constant"], name="constant")), uri=uri)


def test_durations_are_in_units_people_use() -> None:
    assert [duration(value) for value in (4.24, 119.0, 126.0, 7199.0, 9000.0, float("nan"))] == [
        "4.2 s", "119 s", "2.1 min", "120 min", "2.5 h", "\u2013",
    ]  # fmt: skip


def test_a_name_is_read_as_aheading() -> None:
    assert heading("search-adaptive_entropy-steps-20") == "Search: adaptive entropy, steps 20"
    assert heading("clip") == "Search: clip"
