"""The table printed at the end of a sweep: per level the means over seeds with intervals; then the verdict.

It fits :data:`WIDTH` columns: metrics that do not fit beside the others stand in a further table below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dashboards.statistics.format import MINUS, NONE, interval_text, number, p_number, signed
from dashboards.statistics.intervals import Interval
from dashboards.sweep.hypothesis import CrossEffect
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, headline_keys
from dashboards.sweep.summary import hypothesis_result, level_rows, metric_keys

WIDTH = 100
"""Columns of a terminal that the table and the sentences below it keep to."""
_LONGEST_LABEL = 44


def level_table(sweep: SweepData) -> str:
    """One row a level in order; what did not complete is named below it."""
    keys = headline_keys(metric_keys(sweep))
    names = [sweep.describe(key) for key in keys]
    header = [_short(sweep.factor.axis), "seeds", *(name.label for name in names)]
    units = ["", "", *(name.unit for name in names)]
    rows = [
        [_short(row.label), _seeds(row.completed, row.planned), *(_estimate(row.values[key]) for key in keys)]
        for row in level_rows(sweep)
    ]
    caption = "mean over seeds with its 95 % t interval; training metrics over the last 5 steps"
    lines = [*_wrapped(f"{sweep.name}: {caption}"), ""]
    for columns in _tables([header, units, *rows]):
        lines += [*aligned([[row[at] for at in columns] for row in (header, units, *rows)], rule_after=2), ""]
    result = hypothesis_result(sweep)
    return "\n".join([*lines, *_crossed(sweep, result.cross), *_wrapped(result.sentence), *_unfinished(sweep)])


def _crossed(sweep: SweepData, effects: Sequence[CrossEffect]) -> list[str]:
    """Both main effects and the interaction, one row each; nothing where nothing is crossed."""
    if not effects:
        return []
    metric = sweep.factor.hypothesis.metric if sweep.factor.hypothesis else ENTROPY
    rows = [
        [
            signed(item.effect.difference.mean),
            f"[{interval_text(item.effect.difference, sign=True)}]",
            p_number(item.effect.p_value),
            NONE if item.trend is None else p_number(item.trend.p_value),
            str(item.effect.difference.count),
        ]
        for item in effects
    ]
    caption = f"{sweep.describe(metric).label}, differences of means over seeds with 95 % t intervals, by seed:"
    names = [f"  {number}. {item.name}" for number, item in enumerate(effects, start=1)]
    header = ["", "difference", "95 % t interval", "p, paired t", "p, trend", "seeds"]
    table = aligned([header, *([f"{number}.", *row] for number, row in enumerate(rows, start=1))], rule_after=1)
    return [*_wrapped(caption), *(line for name in names for line in _wrapped(name, "     ")), "", *table, ""]


def _tables(rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """The columns of each table, the first two in all of them, so that none is wider than the terminal."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    tables: list[list[int]] = [[0, 1]]
    for column in range(2, len(widths)):
        used = sum(widths[at] + 2 for at in tables[-1])
        if used + widths[column] > WIDTH and len(tables[-1]) > 2:
            tables.append([0, 1])
        tables[-1].append(column)
    return tables


def _short(label: str) -> str:
    """A label with its middle left out where it is longer than a table can bear."""
    half = _LONGEST_LABEL // 2
    return label if len(label) <= _LONGEST_LABEL else f"{label[: half - 1]}\u2026{label[-half:]}"


def _wrapped(sentence: str, indent: str = "") -> list[str]:
    return textwrap.wrap(sentence, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]


def aligned(rows: Sequence[Sequence[str]], rule_after: int) -> list[str]:
    """Lines with columns padded to their widest cell, the first to the left and the others to the right, and a rule
    after ``rule_after`` lines."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines.insert(rule_after, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return [line.rstrip() for line in lines]


def _seeds(completed: int, planned: int) -> str:
    return str(completed) if completed == planned else f"{completed}/{planned}"


def _estimate(interval: Interval) -> str:
    text = number(interval.mean)
    if interval.count < 2:
        return text
    decimals = len(text.partition(".")[2])
    # The ends take the mean's decimals, so that a column lines up.
    low, high = (f"{end:.{decimals}f}".replace("-", MINUS) for end in (interval.low, interval.high))
    return f"{text} [{low}, {high}]"


def _unfinished(sweep: SweepData) -> list[str]:
    cells = sweep.cells[sweep.cells["state"] != "COMPLETED"]
    if cells.empty:
        return []
    lines = ["", f"{len(cells)} of {len(sweep.cells)} cells did not complete:"]
    for cell in cells.to_dict("records"):
        reason = f" ({cell['message'].splitlines()[-1][:160]})" if cell["message"].strip() else ""
        lines += _wrapped(f"  {cell['label']}, seed {cell['seed']}: {cell['state']}{reason}", "    ")
    return lines
