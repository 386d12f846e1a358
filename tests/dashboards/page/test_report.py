"""The page: self-contained, inert whatever a model wrote, open about what is missing, drawn by a real browser."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import elements, in_a_browser, opened, used
from fake_study import EVERYWHERE, HOSTILE, FakeSpec, write_study
from mlflow.tracking import MlflowClient

from dashboards.page.contamination import contamination_rows
from dashboards.page.links import shown_uri
from dashboards.page.packing import compact_json, unpacked
from dashboards.page.page import content_policy
from dashboards.page.palette import DARK
from dashboards.page.report import log_report, report_html, write_report
from dashboards.page.terminal import WIDTH, aligned, level_table
from dashboards.page.tokens import MOST_RESPONSES, MOST_TOKENS, viewer_responses
from dashboards.page.verdicts import load_verdicts, verdicts_text, write_verdicts
from dashboards.store.files import write_atomically
from dashboards.sweep.artifacts import load_contamination
from dashboards.sweep.glossary import parse_glossary
from dashboards.sweep.load import SweepData, load_sweep
from dashboards.sweep.summary import level_rows


def packed_texts(page: str) -> dict[str, str]:
    """What the page carries compressed, by the id of its element."""
    return {name: unpacked(text) for name, text in re.findall(r'<script type="text/plain" id="([\w-]+)">(.*?)<', page)}


def outward(page: str) -> list[str]:
    """Links that leave the page, MLflow's apart."""
    links = [str(attributes["href"]) for _, attributes in elements(page) if "href" in attributes]
    return [link for link in links if not re.match(r"#|http://127\.0\.0\.1:5000/#/experiments/\d+/runs/\w+$", link)]


@pytest.fixture(scope="module")
def page(sweep: SweepData) -> str:
    return report_html(sweep)


@pytest.fixture(scope="module")
def broken_page(broken: SweepData) -> str:
    return report_html(broken)


@pytest.mark.slow
def test_the_page_loads_nothing_and_embeds_plotly_once(page: str) -> None:
    found = elements(page)
    scripts = [attributes for tag, attributes in found if tag == "script"]
    assert sum("type" not in attributes for attributes in scripts) == 4  # the page's own; plotly.js is packed
    assert "* plotly.js v" not in page and packed_texts(page)["plotly-packed"].count("* plotly.js v") == 1
    assert not [tag for tag, attributes in found if "src" in attributes] and outward(page) == []
    assert not [tag for tag, _ in found if tag in ("link", "iframe", "object", "embed", "img")]


def test_the_page_leads_with_the_verdict_in_one_sentence(page: str) -> None:
    head = page[page.index("<header>") : page.index("</header>")]
    assert "Supported" in head and "Final policy entropy rises along upper clip threshold" in head
    assert "3 seeds" in head and "interval" in head


def test_the_page_has_figures_tables_samples_glossary_and_the_way_back(page: str) -> None:
    expected = (
        "Levels at the end of training", "Paired differences from 0.2", "Reward against entropy", "Sampled responses",
        "4*7=28,28-2=26", "Glossary of the metrics shown", "python sweep.py -m factor=clip_high", "3f2a9c1",
    )  # fmt: skip
    assert [words for words in expected if words not in page] == []
    assert page.count('class="plot"') >= 15


def test_the_first_screen_says_why_and_what_moved_with_it(page: str) -> None:
    head = html.unescape(page[page.index("<header>") : page.index("</header>")])
    assert "What carried it, by the ledger:" in head and "negative, unlikely tokens +0.0" in head
    assert "10 of 20 steps have a ledger" in head
    assert all(words in head for words in ("What moved with it", "Distinct-4", "pass@16, held-out", "ECE"))


def test_the_ledger_has_bands_a_fit_and_a_ranking(page: str) -> None:
    text = html.unescape(page)
    expected = (
        "What moved the entropy", "residual (second order)", "Change of entropy against 0.2, by cause",
        "Prediction and estimators of influence", "exact tabular law", "STEER, released", "whole runs resampled",
        "Policy term: learning and noise",
    )  # fmt: skip
    assert [words for words in expected if words not in text] == []
    assert "Change at a token's own position" in text and "they do not rank the estimators" in text


def test_signs_quadrants_and_each_suites_calibration_and_diversity_have_figures(page: str) -> None:
    titles = re.findall(r'<h3 class="title"[^>]*>(.*?)</h3>', page)
    suites = ("held-out", "out-of-domain")
    expected = ["Entropy, positive advantage", "Entropy, negative advantage", "Negative, unlikely tokens",
                "Calibration error (ECE)", "Brier score", "AUROC of confidence", "Distinct-4", "Self-BLEU",
                "Final support kept, held-out by level"]  # fmt: skip
    for name in ("Calibration error (ECE)", "Brier score", "AUROC of confidence", "Distinct-4", "Self-BLEU"):
        expected += [f"{name}, {suite}" for suite in suites]
    assert [title for title in expected if title not in titles] == [] and len(titles) == len(set(titles))


def test_the_page_says_how_much_of_each_suite_is_trained_on(page: str) -> None:
    table = re.search(r'<h2 id="contamination">.*?</table>', page, re.DOTALL)
    assert table is not None
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL)[1:]]
    assert [row[:5] for row in rows] == [["held-out", "64", "0", "0", "8"], ["out-of-domain", "64", "3", "0.047", "8"]]
    assert "4,7,3,2=26:" in table[0] and table[0].count("<code>") == 1


def test_levels_with_other_training_data_have_rows_of_their_own(sweep: SweepData) -> None:
    found = load_contamination(sweep)
    levels = list(sweep.levels["level"])
    found.loc[found["level"] == levels[0], "overlapping"] = 9
    rows = contamination_rows(sweep, found)
    assert len(rows) == 2 * len(levels) and len({row["label"] for row in rows}) == len(levels)
    assert {row["overlapping"] for row in rows if row["label"] == rows[0]["label"]} == {9}


@pytest.mark.slow
def test_a_study_without_a_ledger_says_so(new_store: Callable[[], Path]) -> None:
    spec = FakeSpec(study="off", steps=6, seeds=2, levels=("a", "b"), ledger_every=0)
    page = report_html(load_sweep(write_study(new_store(), spec), "off"))
    assert "it was off in these runs" in page
    assert 'id="ledger"' not in page and 'id="tokens"' not in page and page.count("<script>") == 3  # no viewer
    few = FakeSpec(study="few", steps=4, seeds=2, levels=("a", "b"))
    assert "no seed has 3 ledgers" in report_html(load_sweep(write_study(new_store(), few), "few"))


def test_one_seed_names_causes_as_no_evidence(new_store: Callable[[], Path]) -> None:
    spec = FakeSpec(study="one", steps=8, seeds=1, levels=("a", "b"))
    assert "of one seed and so no evidence" in report_html(load_sweep(write_study(new_store(), spec), "one"))


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_configuration_has_a_page(seeds: int, new_store: Callable[[], Path]) -> None:
    """A run alone, or the seeds of one configuration: no factor, nothing to compare."""
    spec = FakeSpec(study="alone", factor=None, steps=8, seeds=seeds, levels=("a",))
    page = report_html(load_sweep(write_study(new_store(), spec), "alone"))
    assert "Policy entropy" in page and "No hypothesis" in page


def test_the_viewer_holds_few_responses_whatever_was_logged() -> None:
    values = [1e-9 / 3] * 1000
    numbers = dict.fromkeys(("influence", "entropy", "advantage", "ratio", "logprobs"), values)
    rows = [
        {"signature": f"run{run}", "level": "a", "label": "a", "level_index": 0, "seed": run, "step": step, "update": 0,
         "prompt": "p" * 5000, "reward": float(index == 2), "tokens": ["t"] * 1000, **numbers,
         "coefficient": [float(index == 1)] * 1000}
        for run in range(200) for step in (0, 10, 20) for index in range(4)
    ]  # fmt: skip
    found = viewer_responses(pd.DataFrame(rows))
    assert len(found) == MOST_RESPONSES and {row["step"] for row in found} == {0, 20}
    assert {len(row["influence"]) for row in found} == {MOST_TOKENS} and found[0]["cut"] == 1000 - MOST_TOKENS
    assert [(row["reward"], row["coefficient"][0]) for row in found[:2]] == [(1.0, 0.0), (0.0, 1.0)], "a gradient first"
    assert len(compact_json(found)) < 3e6 and found[0]["influence"][0] == 3.33e-10
    assert viewer_responses(pd.DataFrame(rows).head(0)) == []


@pytest.mark.slow
def test_hostile_text_stays_text(broken_page: str) -> None:
    assert HOSTILE not in broken_page and "&lt;script&gt;document.title=" in broken_page
    assert not [tag for tag, attributes in elements(broken_page) if "onerror" in attributes]


def test_intervals_over_problems_stand_beside_those_over_seeds(sweep: SweepData, page: str) -> None:
    row = level_rows(sweep)[0]
    # Every run logged a standard error of 0.05 over its problems; on the logit scale 1.96 of them stay within 0 and 1.
    over, seeds = row.problems["eval/heldout/avg_at_16"], row.values["eval/heldout/avg_at_16"]
    assert 0 < over.low < seeds.mean == over.mean < over.high < 1 and over.high - over.low == pytest.approx(
        0.19, abs=0.02
    )
    assert "problems: " in page and "policy/entropy" not in row.problems


def test_definitions_come_from_the_runs(sweep: SweepData, page: str) -> None:
    assert sweep.describe("eval/ood/pass_at_8").definition == "chance that one of 8 samples is correct"
    assert sweep.describe("entropy/delta_predicted_exact").definition == "prediction by exact", "the closer family"
    assert sweep.describe("eval/ood/pass_at_8").range.high == 1.0 and sweep.describe("policy/grad_norm").unit == ""
    assert "Exact full-vocabulary entropy per response token." in page and "Better: higher." in page


@pytest.mark.slow
def test_a_study_without_definitions_shows_its_metrics_without_them(new_store: Callable[[], Path]) -> None:
    spec = FakeSpec(study="old", steps=6, seeds=2, levels=("a", "b"), glossary=False)
    sweep = load_sweep(write_study(new_store(), spec), "old")
    assert sweep.describe("policy/entropy").axis == "Policy entropy"
    assert "Glossary of the metrics shown (0)" in report_html(sweep)


def test_an_unreadable_glossary_is_one_sentence() -> None:
    for text in ("{", "[1]", '[{"name": "a<b>/c<b>"}]', "{}x"):
        with pytest.raises(ValueError, match=r"metrics.json of run x cannot be read: "):
            parse_glossary(text, "run x")


def test_cells_that_did_not_complete_are_named(broken_page: str) -> None:
    assert "3 of 12 cells did not complete" in broken_page
    for words in ("0.28, seed 1</b>: FAILED", "0.4, seed 2</b>: MISSING", "0.5, seed 0</b>: RUNNING"):
        assert words in broken_page


def test_the_policy_allows_the_embedded_scripts_only() -> None:
    # SHA-256 of the empty string, in base64.
    policy = content_policy([""])
    assert "script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';" in policy
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder" / "report.html"
    write_atomically("first", target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically("second", target)
    assert target.read_text() == "first" and [item.name for item in target.parent.iterdir()] == ["report.html"]


def test_the_report_is_attached_to_the_parent_run(sweep: SweepData, tmp_path: Path) -> None:
    path = write_report(sweep, tmp_path / "any name.html")
    log_report(sweep, path)
    client = MlflowClient(tracking_uri=sweep.uri)
    assert "report.html" in {item.path for item in client.list_artifacts(sweep.parent.run_id)}


def test_credentials_in_a_tracking_uri_are_not_shown() -> None:
    assert shown_uri("postgresql://user:secret@host:5432/db") == "postgresql://host:5432/db"
    assert shown_uri("sqlite:///outputs/mlflow.db") == "sqlite:///outputs/mlflow.db"


def test_level_table_is_aligned_and_complete(sweep: SweepData, broken: SweepData) -> None:
    lines = level_table(sweep).splitlines()
    assert max(len(line) for line in lines) <= WIDTH == 100
    tables = [index for index, line in enumerate(lines) if line.startswith("Upper clip threshold")]
    assert len(tables) == 2 and "Policy entropy" in lines[tables[0]] and "(ECE)" in lines[tables[1]]
    for begin in tables:
        rows = lines[begin + 3 : begin + 7]
        assert [row.split()[0] for row in rows] == ["0.2", "0.28", "0.4", "0.5"]
        assert len({len(row) for row in rows}) == 1
    assert "Supported" in lines[tables[1] + 8]
    text = level_table(broken)
    assert "3 of 12 cells did not complete" in text and "0.4, seed 2: MISSING" in text


def test_a_long_level_leaves_room_for_its_values(sweep: SweepData) -> None:
    label = "optim.lr=0.0001 " * 8
    cells = sweep.cells.assign(label=sweep.cells["label"].where(sweep.cells["level"] != "0.2", label))
    lines = level_table(replace(sweep, cells=cells)).splitlines()
    assert max(len(line) for line in lines[:12]) <= WIDTH and any("\u2026" in line for line in lines)


def test_aligned_pads_to_the_widest_cell() -> None:
    assert aligned([["a", "bb"], ["ccc", "d"]], rule_after=1) == ["a    bb", "-------", "ccc   d"]


def test_verdicts_judge_every_study(study_uri: str, tmp_path: Path) -> None:
    verdicts = load_verdicts(study_uri)
    assert [(claim.name, claim.result.outcome) for claim in verdicts] == [
        ("broken", "too few seeds"),
        ("clip_high", "supported"),
    ]
    assert "supported" in verdicts_text(verdicts)
    page = html.unescape(write_verdicts(verdicts, study_uri, tmp_path / "verdicts.html").read_text())
    assert "Upper clip threshold" in page and "script-src 'none'" in page


@pytest.mark.slow
@in_a_browser
def test_a_browser_without_a_network_draws_the_page_and_runs_nothing_else(broken: SweepData, tmp_path: Path) -> None:
    dom, problems = opened(write_report(broken, tmp_path / "report.html"))
    assert "<title>Upper clip threshold" in dom and "pwned" not in dom[: dom.index("</title>")]
    drawn = re.search(r'data-ready="(\d+)"', dom)
    assert drawn is not None and int(drawn[1]) == dom.count('class="plot-container')
    assert dom.count("main-svg") >= int(drawn[1]) >= 15
    assert problems == []


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme_with_its_figures_and_prints_light(
    scheme: str, sweep: SweepData, tmp_path: Path
) -> None:
    write_report(sweep, tmp_path / "report.html")
    found, problems = used(
        tmp_path / "report.html",
        """
        const view = page.defaultView, style = (element) => view.getComputedStyle(element);
        const plot = page.querySelector(".plot");
        const line = () => plot.data.find((trace) => trace.mode === "lines+markers").line.color;
        const seen = { ground: style(page.body).backgroundColor, screen: line() };
        seen.mark = style(page.querySelector(".legend .mark")).color;
        view.dispatchEvent(new Event("beforeprint"));
        seen.paper = line();
        view.dispatchEvent(new Event("afterprint"));
        seen.again = line();
        page.querySelector("button[data-level]").click();
        seen.hidden = plot.data.filter((trace) => trace.visible === "legendonly").length;
        seen.titles = [...page.querySelectorAll("h3.title")].every((title) => title.textContent);
        seen.twice = Boolean(plot.layout.title && plot.layout.title.text);
        seen.columns = page.querySelector("#levels ~ .scroll td").dataset.column;
        return seen;
        """,
        *(["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []),
    )
    light, dark = "#440154", DARK["#440154"]
    expected = {
        "light": {"ground": "rgb(255, 255, 255)", "screen": light, "mark": rgb(light), "again": light},
        "dark": {"ground": "rgb(20, 25, 31)", "screen": dark, "mark": rgb(dark), "again": dark},
    }[scheme]
    rest = {"paper": light, "hidden": 2, "titles": True, "twice": False, "columns": "Seeds"}
    assert json.loads(found) == {**expected, **rest} and problems == []


@pytest.mark.slow
@in_a_browser
def test_the_page_gives_its_data_as_a_file(sweep: SweepData, tmp_path: Path) -> None:
    write_report(sweep, tmp_path / "report.html")
    found, problems = used(
        tmp_path / "report.html",
        """
        const view = page.defaultView, seen = {}, made = view.URL.createObjectURL;
        view.URL.createObjectURL = (blob) => { seen.type = blob.type; return made.call(view.URL, blob); };
        page.getElementById("download-data").click();
        return new Promise(function wait(done) {
          if (page.documentElement.dataset.rows) done({ ...seen, rows: page.documentElement.dataset.rows });
          else setTimeout(() => wait(done), 50);
        });
        """,
    )
    shown = set(json.loads(packed_texts((tmp_path / "report.html").read_text())["data-packed"])["metrics"])
    points = sweep.metrics[sweep.metrics["metric"].isin(shown)]["value"].notna().sum()
    seen = json.loads(found)
    assert seen["type"] == "text/csv" and int(seen["rows"]) == points > 5000 and problems == []


@pytest.mark.slow
def test_links_lead_to_the_runs_in_mlflow(sweep: SweepData) -> None:
    page = report_html(sweep, "https://mlflow.example.org/base/")
    run = next(iter(sweep.runs.values()))
    link = f"https://mlflow.example.org/base/#/experiments/{run.experiment_id}/runs/"
    assert f'href="{link}{run.run_id}"' in page and f'href="{link}{sweep.parent.run_id}"' in page
    assert "mlflow ui --backend" not in page and "mlflow ui --backend" in report_html(sweep)
    with pytest.raises(ValueError, match="begins with http"):
        report_html(sweep, "javascript:alert(1)")


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[start : start + 2], 16)) for start in (1, 3, 5))})"


def test_the_contents_lead_to_every_heading(page: str) -> None:
    found = elements(page)
    links = [str(attributes["href"])[1:] for tag, attributes in found if tag == "a" and "href" in attributes]
    headings = [attributes["id"] for tag, attributes in found if tag == "h2" and attributes.get("id")]
    assert set(headings) - {"why", "moved"} <= set(links) and len(headings) >= 12
    assert {link for link in links if not link.startswith("ttp")} <= {str(a["id"]) for _, a in found if a.get("id")}


ORANGE, BLUE = "230, 126, 0", "0, 114, 178"


def shades(colors: list[str]) -> list[tuple[str, float]]:
    """Tone and opacity of each CSS colour."""
    found = [re.fullmatch(r"rgba\((\d+, \d+, \d+), ([\d.]+)\)", color) for color in colors]
    return [(match[1], round(float(match[2]), 2)) for match in found if match is not None]


@pytest.mark.slow
@in_a_browser
def test_the_viewer_colours_tokens_by_what_is_chosen(sweep: SweepData, tmp_path: Path) -> None:
    write_report(sweep, tmp_path / "report.html")
    found, problems = used(
        tmp_path / "report.html",
        """
        const at = (name) => page.getElementById("token-" + name), seen = {};
        const set = (name, value) => { at(name).value = value; at(name).dispatchEvent(new Event("change")); };
        const tokens = () => [...page.querySelectorAll("#token-responses .token")];
        seen.texts = tokens().slice(0, 5).map((token) => token.textContent);
        for (const name of ["influence", "entropy", "advantage", "ratio"]) {
          set("color", name);
          seen[name] = tokens().slice(0, 4).map((token) => token.style.backgroundColor);
        }
        seen.scale = at("scale").textContent;
        tokens()[1].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        seen.tip = [at("tip").hidden, at("tip").textContent];
        seen.before = page.querySelectorAll(".response").length;
        set("answer", "incorrect");
        seen.incorrect = [...page.querySelectorAll(".response p")].map((line) => line.textContent);
        set("run", "");
        seen.all = page.querySelectorAll(".response").length;
        return seen;
        """,
    )
    seen = json.loads(found)
    assert seen["texts"] == ["4", "*", "7", "=", "28"]
    # The first response is a correct one: influence -4e-5, 1e-5, 0; by square root 1 and 1/2 of the full colour, 0.75.
    assert shades(seen["influence"][:3]) == [(BLUE, 0.75), (ORANGE, 0.38), (BLUE, 0.0)]
    # Entropies 0.5, 1, 0 of at most 1; advantages 1; ratios 1, 1.2 and 0.8 by their logarithm.
    assert shades(seen["entropy"]) == [("136, 84, 208", share) for share in (0.38, 0.75, 0.0, 0.0)]
    assert shades(seen["advantage"]) == [(ORANGE, 0.75)] * 4
    assert shades(seen["ratio"][:3]) == [(BLUE, 0.0), (ORANGE, 0.61), (BLUE, 0.75)]
    assert "full colour at a factor of 1.25" in seen["scale"]
    hidden, tip = seen["tip"]
    assert not hidden and tip.splitlines()[:3] == ["influence 0.00001 nats", "entropy 1 nats", "probability 0.368"]
    assert seen["before"] == 4 and len(seen["incorrect"]) == 2 and seen["all"] == 24
    assert all("reward 0" in line for line in seen["incorrect"])
    assert problems == []


@pytest.fixture(scope="module")
def hostile(new_store: Callable[[], Path]) -> SweepData:
    """Markup in every text that a run, a sweep or a factor can bring: names, labels, prompts, responses, versions."""
    hypothesis = {"metric": "policy/entropy", "direction": "increase", "statement": EVERYWHERE, "source": EVERYWHERE}
    factor = {"name": EVERYWHERE, "key": "task.template", "label": EVERYWHERE, "unit": EVERYWHERE, "ordered": True,
              "hypothesis": hypothesis}  # fmt: skip
    spec = FakeSpec(study=f"s{EVERYWHERE}", factor=factor, levels=("a", EVERYWHERE), seeds=2, steps=12,
                    states={(0, 1): "FAILED"}, text=EVERYWHERE, everywhere=EVERYWHERE)  # fmt: skip
    return load_sweep(write_study(new_store(), spec), spec.study)


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("kind", ["report", "verdicts"])
def test_markup_in_every_name_and_text_runs_nothing_in_a_browser(kind: str, hostile: SweepData, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    if kind == "report":
        write_report(hostile, path)
    else:
        write_verdicts(load_verdicts(hostile.uri), hostile.uri, path)
    found = elements(path.read_text())
    assert not [tag for tag, attributes in found if {"onerror", "src"} & set(attributes)]
    assert outward(path.read_text()) == []
    assert sum(tag == "script" and "type" not in attributes for tag, attributes in found) == 4 * (kind == "report")
    dom, problems = opened(path)
    assert "<title>pwned" not in dom and "&lt;script&gt;document.title=" in dom and "{{7*7}}" in dom
    acting = [name for _, attributes in elements(dom) for name in attributes if name.endswith("src")]
    assert acting == [] and outward(dom) == [] and not re.search(r"<[^>\"]*\son\w+=", dom)
    assert problems == []
