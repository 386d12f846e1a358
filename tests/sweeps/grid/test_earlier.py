"""Claims of an earlier start stay in the ``sweep.json`` of a study, with their runs."""

from __future__ import annotations

from typing import Any

from sweeps.grid.earlier import with_earlier_claims


def cell(signature: str, level: str, index: int, seed: int) -> dict[str, Any]:
    return {
        "signature": signature, "level": level, "label": level, "level_index": index, "seed": seed, "overrides": [],
    }  # fmt: skip


def claim(number: int, **arms: str) -> dict[str, Any]:
    return {"number": number, "arms": arms, "seeds": [0]}


EARLIER = {
    "cells": [cell("a0", "x", 0, 0), cell("b0", "y", 1, 0), cell("c0", "z", 2, 0), cell("gone", "z", 2, 1)],
    "claims": [claim(1, one="x", two="y"), claim(2, low="y", high="z")],
}


def test_a_claim_that_is_not_asked_for_stays_with_its_runs() -> None:
    new = {
        "study": "s",
        "cells": [cell("d0", "w", 0, 0), cell("a0", "x", 1, 0)],
        "claims": [claim(1, one="w", two="x")],
    }
    found = with_earlier_claims(new, EARLIER, {"a0", "b0", "c0", "d0"})
    assert found["study"] == "s" and found["claims"] == [claim(1, one="w", two="x"), claim(2, low="y", high="z")]
    assert [(cell["signature"], cell["level"], cell["level_index"]) for cell in found["cells"]] == [
        ("d0", "w", 0), ("a0", "x", 1), ("b0", "y", 2), ("c0", "z", 3),
    ]  # fmt: skip


def test_a_level_has_the_name_that_it_has_now() -> None:
    new = {"cells": [cell("b0", "y as claim 3 has it", 0, 0)], "claims": [claim(3, arm="y as claim 3 has it")]}
    found = with_earlier_claims(new, EARLIER, {"a0", "b0", "c0"})
    assert [item["arms"] for item in found["claims"][1:]] == [
        {"one": "x", "two": "y as claim 3 has it"},
        {"low": "y as claim 3 has it", "high": "z"},
    ]
    assert [(cell["signature"], cell["level"], cell["label"]) for cell in found["cells"]] == [
        ("b0", "y as claim 3 has it", "y as claim 3 has it"), ("a0", "x", "x"), ("c0", "z", "z"),
    ]  # fmt: skip


def test_a_run_that_the_new_start_has_with_another_signature_is_replaced() -> None:
    new = {"cells": [cell("new", "y", 0, 0)], "claims": [claim(3, arm="y")]}
    found = with_earlier_claims(new, EARLIER, {"a0", "b0", "c0"})
    assert [cell["signature"] for cell in found["cells"]] == ["new", "a0", "c0"]


def test_without_an_earlier_start_nothing_is_added() -> None:
    new = {"cells": [cell("b0", "y", 0, 0)], "claims": [claim(3, arm="y")]}
    assert with_earlier_claims(new, {}, set()) == new
    again = with_earlier_claims(with_earlier_claims(new, EARLIER, {"a0"}), {}, set())
    assert [item["number"] for item in again["claims"]] == [3, 1, 2]
    # Arms without a run folder keep their names, however often the study is started.
    assert with_earlier_claims(new, again, {"a0"}) == again
