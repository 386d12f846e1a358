"""The sentence at the top of a report that explains a difference: the causes in the ledger that contributed most to it.

Computed from the cumulated accounts; a cause is named only with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.statistics.format import interval_text, signed
from dashboards.sweep.ledger import MIN_LEDGERS, Account, Cause, causes
from dashboards.sweep.load import SweepData
from dashboards.sweep.moved import ends_words

_NAMED = 3
"""Causes named in the sentence; the table beside it has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The causes of the difference between two levels."""

    sentence: str
    causes: Sequence[Cause]
    note: str


def why(sweep: SweepData, accounts: Sequence[Account], ends: tuple[str, str] | None) -> Why | None:
    """What carried the difference between the two levels; None where no two levels are compared."""
    if ends is None:
        return None
    first, last = ends_words(sweep, ends)
    parts = causes(accounts, ends[1], ends[0])
    if not parts:
        return Why(sentence=_unknown(sweep, first, last), causes=(), note="")
    seeds = parts[0].difference.count
    account = next(item for item in accounts if item.level == ends[1])
    total = sum(part.difference.mean for part in parts)
    return Why(
        sentence=(
            f"From {first} to {last} the change of entropy differs by {signed(total)} nats. {_carried(parts, seeds)}"
        ),
        causes=parts,
        note=(
            f"Paired over {seeds} seed{'' if seeds == 1 else 's'}; {account.ledgers} of {len(account.parts)} steps "
            "have a ledger, between them it is interpolated. The parts add up; each interval stands for itself."
        ),
    )


def _carried(parts: Sequence[Cause], seeds: int) -> str:
    clear = [part for part in parts if part.clear]
    if clear:
        text = f"What carried it, by the ledger: {_list(clear[:_NAMED])}."
        unclear = [part for part in parts if not part.clear]
        larger = [part for part in unclear if abs(part.difference.mean) > abs(clear[0].difference.mean)]
        return text + (f" Larger, but not clear of 0: {_list(larger[:_NAMED])}." if larger else "")
    if seeds < 2:
        return f"The largest parts, of one seed and so no evidence: {_list(parts[:_NAMED])}."
    return (
        f"No part of the ledger is clear of 0 with these seeds, so it does not say what carried the difference; the "
        f"largest are {_list(parts[:_NAMED])}."
    )


def _list(parts: Sequence[Cause]) -> str:
    texts = []
    for part in parts:
        interval = interval_text(part.difference, sign=True)
        suffix = f" ({interval})" if part.difference.count > 1 else ""
        texts.append(f"{part.words} {signed(part.difference.mean)}{suffix}")
    return "; ".join(texts)


def _unknown(sweep: SweepData, first: str, last: str) -> str:
    if sweep.metrics["metric"].str.startswith("ledger/").any():
        return (
            f"The ledger cannot say: no seed has {MIN_LEDGERS} ledgers in a completed run of both {first} and {last} "
            "(accounting.ledger_every=2 writes one at every second step)."
        )
    return "The ledger cannot say: it was off in these runs (accounting.ledger_every=0)."
