"""The claims of earlier starts of a study, which stay in its ``sweep.json`` when a start asks for some claims only.

Otherwise ``claims=1`` after the whole study would take the other verdicts out of the table, and their runs out of
``python -m sweeps status``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sweeps.grid.sweep import Document


def with_earlier_claims(document: Document, earlier: Mapping[str, Any], existing: Collection[str]) -> Document:
    """``document`` with the claims of ``earlier`` (the ``sweep.json`` of the start before) that it lacks, and their
    cells. Of a claim that both have, the seeds and arms of ``document`` stand.

    ``existing``: signatures that have a run folder; the earlier cells that have none are left out.
    """
    asked = {claim["number"] for claim in document["claims"]}
    claims = [claim for claim in earlier.get("claims") or () if claim["number"] not in asked]
    names = _names_now(document["cells"], earlier.get("cells") or ())
    claims = [
        {**claim, "arms": {arm: names.get(level, level) for arm, level in claim["arms"].items()}} for claim in claims
    ]
    levels = {level for claim in claims for level in claim["arms"].values()}
    cells = [{**cell, "level": names[cell["level"]]} for cell in earlier.get("cells") or ()]
    left = [cell for cell in cells if cell["level"] in levels and cell["signature"] in existing]
    return {
        **document,
        "cells": [*document["cells"], *_not_among(document["cells"], left)],
        "claims": [*document["claims"], *claims],
    }


def _names_now(cells: Sequence[Document], earlier: Sequence[Document]) -> dict[str, str]:
    """Earlier name of a level -> its name now: a configuration is named by the first claim that has it."""
    now = {cell["signature"]: cell["level"] for cell in cells}
    unchanged = {cell["level"]: cell["level"] for cell in earlier}
    return unchanged | {cell["level"]: now[cell["signature"]] for cell in earlier if cell["signature"] in now}


def _not_among(cells: Sequence[Document], earlier: Sequence[Document]) -> list[Document]:
    """The earlier cells whose level and seed ``cells`` have not; new levels come after theirs."""
    index = {cell["level"]: cell["level_index"] for cell in cells}
    taken = {(cell["level"], cell["seed"]) for cell in cells}
    found = []
    for cell in earlier:
        level = cell["level"]
        if (level, cell["seed"]) not in taken:
            place = index.setdefault(level, 1 + max(index.values()))
            found.append({**cell, "label": level, "level_index": place})
    return found
