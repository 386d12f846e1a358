"""The promises again, for regularizers at settings and in states where they act on the bench's few dozen tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import contract_checks as checks
import pytest
from contract_checks import Case, from_member
from testbench import Bench, Toy, off_policy, plain

from trainer.objective.base import Regularizer, State
from trainer.objective.regularizers.calibrl import CalibRL
from trainer.objective.regularizers.dph import DPH
from trainer.objective.regularizers.epo import EPO
from trainer.objective.regularizers.kl_reference import KLReference
from trainer.objective.regularizers.lp_reg import LpReg
from trainer.objective.regularizers.siren import Siren


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSiren(Siren):
    """SIREN in a run whose anchor was another entropy than the present one."""

    def initial_state(self) -> State:
        return {"anchor": 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class LateEPO(EPO):
    """EPO after two steps of mean entropy 0.6."""

    def initial_state(self) -> State:
        return {"sum": 1.2, "steps": 2}


BUSY: dict[str, Regularizer] = {
    "siren": LateSiren(coef=5.0, quantile=0.5),
    "siren without anchor or nucleus": Siren(coef=1.0, anchor=False, top_p=None, peaks_of="full"),
    "epo": LateEPO(coef=1.0),
    "epo released": LateEPO(coef=1.0, variant="released"),
    "kl k1": KLReference(coef=1.0, estimator="k1"),
    "kl k2": KLReference(coef=1.0, estimator="k2"),
    "lp_reg": LpReg(lowest_frac=0.8, min_p=0.05),
    "lp_reg released": LpReg(lowest_frac=0.8, min_p=0.05, variant="released"),
    "dph js": DPH(coef=5.0, divergence="js_low_var"),
    "dph alpha": DPH(coef=5.0, divergence="alpha", rows_per_step=1),
    "calibrl": CalibRL(coef=3.0),
}

PROMISES = (
    checks.finite,
    checks.silent_off_mask,
    checks.reproducible,
    checks.state_survives_json,
    checks.gradient_is_that_of_the_value,
    checks.row_local,
    checks.independent_of_micro_batches,
    checks.independent_of_row_order,
    checks.independent_of_padding,
    checks.independent_of_ranks,
    checks.asks_for_no_more_forward_passes_than_it_says,
)


@pytest.mark.parametrize("check", PROMISES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", BUSY)
def test_promise(name: str, check: Callable[[Case], None]) -> None:
    check(from_member("regularizer", BUSY[name]))


@pytest.mark.parametrize("name", BUSY)
def test_it_does_act(name: str) -> None:
    model, batch = Toy(), off_policy(Toy())
    base = Bench(model).step(plain(), batch)
    assert Bench(model).step(from_member("regularizer", BUSY[name]).objective, batch).distance(base) > 1e-3 * base.size
