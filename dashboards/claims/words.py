"""What a test compares, in words for tables and titles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dashboards.sweep.names import label_of

_LATER = "over the second half"


def value_words(value: Mapping[str, Any]) -> str:
    """``policy entropy at temperature 1 at the end``."""
    name = next(iter(value))
    return _WORDS[name](value[name], value)


def compared_words(compare: str, arms: Sequence[str]) -> str:
    """``four updates - one update``, ``one → four → eight updates``."""
    return {
        "value": lambda: arms[0],
        "difference": lambda: f"{arms[-1]} - {arms[0]}",
        "trend": lambda: " → ".join(arms),
        "peak": lambda: f"between {arms[0]} and {arms[-1]}",
        "interaction": lambda: "({3} - {2}) - ({1} - {0})".format(*arms),
        "any": lambda: f"{', '.join(arms)} differ",
    }[compare]()


def _label(metric: str) -> str:
    """Its label inside a sentence; a label of capitals (ECE) stays as it is."""
    label = label_of(metric)
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def _deviation(metric: str, value: Mapping[str, Any]) -> str:
    target = "its first value" if value["target"] == "first" else f"{value['target']:g}"
    return f"distance of {_label(metric)} from {target} {_LATER}"


def _correlation(metrics: Sequence[str], value: Mapping[str, Any]) -> str:
    kind = "rank correlation" if value.get("rank", True) else "correlation"
    return f"{kind} of {_label(metrics[0])} and {_label(metrics[1])} within a run"


def _share_of(metric: str, value: Mapping[str, Any]) -> str:
    return f"share of {_label(metric)} in the sizes of {', '.join(_label(key) for key in value['among'])}"


def _lead(estimator: str, value: Mapping[str, Any]) -> str:
    others = ", ".join(value["over"]).replace("_", " ")
    return f"lead of {estimator.replace('_', ' ')} over {others} in correlation with token influence"


_WORDS: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "end": lambda metric, _: f"{_label(metric)} at the end",
    "change": lambda metric, _: f"change of {_label(metric)} over the run",
    "spread": lambda metric, _: f"standard deviation of the steps of {_label(metric)}",
    "deviation": _deviation,
    "correlation": _correlation,
    "slope": lambda metrics, _: f"slope of {_label(metrics[1])} on {_label(metrics[0])}",
    "share_below": lambda metric, value: f"share of steps with {_label(metric)} below {value.get('bound', 0):g}",
    "share_of": _share_of,
    "lead": _lead,
    "law_error": lambda part, _: f"error of R = -a e^H + b fitted on the first {part:.0%} of the steps",
    "law_fit": lambda part, _: "R² of R = -a e^H + b" + (f" over the first {part:.0%}" if part < 1 else ""),
    "at_equal_reward": lambda metric, _: f"{_label(metric)} at equal reward",
}
