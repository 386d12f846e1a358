"""Every metric a run may log, declared once: key, unit, meaning, reduction.

The loop checks keys here before it writes. The table is printed as the glossary of docs and README (``python -m
trainer.metrics.table``) and written into every run folder as ``metrics.json``, from which reports are labelled. A key
with ``<placeholders>`` declares a family. It must not import torch: ``sweeps`` and the docs read it too.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.metrics.declared import BETTER, POSITIVE, RANGES, ROWS, Ends

PLACEHOLDERS = {
    "<suite>": r"[A-Za-z0-9_-]+",
    "<k>": r"[1-9][0-9]*",
    "<n>": r"[1-9][0-9]*",
    "<component>": r"[A-Za-z0-9_-]+",
    "<estimator>": r"(?:covariance|steer_published|steer_released|exact)",
    "<predictor>": r"(?:covariance|steer_published|steer_released|exact|advantage|probability|surprisal)",
    "<digit>": r"[0-9]",
    "<quadrant>": r"(?:positive_likely|positive_unlikely|negative_likely|negative_unlikely|neutral)",
}
"""What each placeholder of a key may stand for, as a regular expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredMetric:
    """One declared metric, or a family of them if the key has placeholders."""

    key: str
    """Name in metrics.jsonl and in MLflow."""
    unit: str
    """nats, tokens, s, GiB, reward, 1 (a pure number), ..."""
    meaning: str
    """What it says, in a line."""
    reduction: str
    """How pieces of a step (micro-batches, ranks) become one number: mean (sum / count), max, sum, or last (there is
    only one)."""

    @property
    def range(self) -> Ends:
        """Least and largest value that it can take; None where there is no end."""
        return RANGES.get(self.key, RANGES.get(self.unit, POSITIVE))

    @property
    def better(self) -> str | None:
        """higher, lower, or None where neither is better by itself."""
        name = self.key.rpartition("/")[2].removeprefix("<suite>_")
        return BETTER.get(name, BETTER.get(self.unit))

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches exactly the keys that this declaration covers."""
        parts = re.split(r"(<[a-z]+>)", self.key)
        return re.compile("".join(PLACEHOLDERS[part] if part in PLACEHOLDERS else re.escape(part) for part in parts))


METRICS: tuple[DeclaredMetric, ...] = tuple(
    DeclaredMetric(key=key, unit=unit, reduction=reduction, meaning=meaning) for key, unit, reduction, meaning in ROWS
)
"""All declarations, in the order of the glossary."""


def check(keys: Iterable[str]) -> None:
    """Raise ValueError naming every undeclared key with the nearest declared one; return None if all are declared."""
    unknown = [key for key in keys if find(key) is None]
    if unknown:
        listing = ", ".join(f"{key!r} (nearest: {nearest_key(key)!r})" for key in unknown)
        raise ValueError(f"undeclared metric {listing}; declare it in trainer/metrics/declared.py or correct the name")


@functools.cache
def find(key: str) -> DeclaredMetric | None:
    """The declaration that covers ``key``, or None. Remembered, because the same keys come every step."""
    exact, families = _compiled()
    return exact.get(key) or next((metric for pattern, metric in families if pattern.fullmatch(key)), None)


def nearest_key(key: str) -> str:
    """The declared key most like ``key``; placeholders of a family are filled from ``key`` where the shapes allow."""
    candidates = [_fill(metric.key, key) for metric in METRICS]
    return max(candidates, key=lambda candidate: difflib.SequenceMatcher(None, key, candidate).ratio())


def glossary_json() -> str:
    """The table as a JSON list of objects: ``name, unit, reduction, definition, range, better``."""
    rows = [
        {
            "name": metric.key,
            "unit": metric.unit,
            "reduction": metric.reduction,
            "definition": metric.meaning,
            "range": metric.range,
            "better": metric.better,
        }
        for metric in METRICS
    ]
    return json.dumps(rows, indent=1) + "\n"


def glossary_markdown() -> str:
    """The table as Markdown, one section per first path segment."""
    head = ["| metric | unit | over a step | range | better | meaning |", "|---|---|---|---|---|---|"]
    lines: list[str] = []
    section = ""
    for metric in METRICS:
        first = metric.key.split("/")[0]
        if first != section:
            section = first
            lines += ["", f"### `{first}/`", "", *head]
        cells = (
            f"`{metric.key}`",
            metric.unit,
            metric.reduction,
            _ends(metric.range),
            metric.better or "",
            _prose(metric),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).strip() + "\n"


def _ends(ends: Ends) -> str:
    low, high = ends
    if low is None and high is None:
        return ""
    return f"\u2265 {low:g}" if high is None else f"\u2264 {high:g}" if low is None else f"{low:g} to {high:g}"


def _prose(metric: DeclaredMetric) -> str:
    """The meaning with ``<k>`` as ``k``: Markdown takes angle brackets for HTML."""
    return re.sub(r"<(\w+)>", r"\1", metric.meaning)


HEADLINES = (
    "policy/entropy",
    "policy/entropy_positive",
    "policy/entropy_negative",
    "policy/surprisal",
    "policy/clip_frac_high",
    "policy/kl_old",
    "entropy/delta_measured",
    "rollout/reward",
    "rollout/zero_std_frac_all_correct",
    "diversity/distinct_4",
    "diversity/self_bleu",
    "calibration/ece",
    "engine/logprob_gap_max",
    "eval/<suite>/avg_at_<n>",
    "eval/<suite>/pass_at_<k>",
    "eval/<suite>/maj_at_<k>",
)
"""What a newcomer looks at first."""


def headlines_markdown() -> str:
    """The glossary of :data:`HEADLINES`, for the README."""
    chosen = {metric.key: metric for metric in METRICS}
    rows = [f"| `{key}` | {chosen[key].unit} | {_prose(chosen[key])} |" for key in HEADLINES]
    return "\n".join(["| metric | unit | meaning |", "|---|---|---|", *rows]) + "\n"


@functools.cache
def _compiled() -> tuple[dict[str, DeclaredMetric], list[tuple[re.Pattern[str], DeclaredMetric]]]:
    exact = {metric.key: metric for metric in METRICS if "<" not in metric.key}
    return exact, [(metric.pattern, metric) for metric in METRICS if "<" in metric.key]


def _fill(template: str, key: str) -> str:
    """``eval/<suite>/pass_at_<k>`` read in the light of ``eval/ood/pas_at_4`` -> ``eval/ood/pass_at_4``."""
    segments, key_segments = template.split("/"), key.split("/")
    if len(segments) == 3 and len(key_segments) == 3 and segments[1] == "<suite>":
        template = template.replace("<suite>", key_segments[1])
    number = re.search(r"[1-9][0-9]*$", key)
    return template.replace("<k>", number[0]).replace("<n>", number[0]) if number else template


if __name__ == "__main__":
    print(headlines_markdown() if sys.argv[1:] == ["--headlines"] else glossary_markdown(), end="")
