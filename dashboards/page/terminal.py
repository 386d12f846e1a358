"""The table printed at the end of a sweep: per level the means over seeds with intervals; then the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.statistics.format import MINUS, number
from dashboards.statistics.intervals import Interval
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import headline_keys
from dashboards.sweep.summary import hypothesis_result, level_rows, metric_keys


def level_table(sweep: SweepData) -> str:
    """One row a level in order; what did not complete is named below it."""
    keys = headline_keys(metric_keys(sweep))
    names = [sweep.describe(key) for key in keys]
    header = [sweep.factor.axis, "seeds", *(name.label for name in names)]
    units = ["", "", *(name.unit for name in names)]
    rows = [
        [row.label, _seeds(row.completed, row.planned), *(_estimate(row.values[key]) for key in keys)]
        for row in level_rows(sweep)
    ]
    what = "mean over seeds with its 95 % t interval; training metrics over the last 5 steps"
    lines = [f"{sweep.name}: {what}", ""]
    lines += [*aligned([header, units, *rows], rule_after=2), "", hypothesis_result(sweep).sentence]
    return "\n".join(lines + _unfinished(sweep))


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
        lines.append(f"  {cell['label']}, seed {cell['seed']}: {cell['state']}{reason}")
    return lines
