"""Members whose defaults do little on a small batch, at settings that act: the same promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_checks import CHECKS, Case, from_member
from testbench import Bench, Toy, off_policy, plain

from trainer.objective.advantages.one_sided import OneSided
from trainer.objective.advantages.repo import REPO
from trainer.objective.controllers.aer import AERController
from trainer.objective.controllers.entrocraft import Entrocraft
from trainer.objective.controllers.entropic import EntroPIC
from trainer.objective.controllers.skywork import Skywork
from trainer.objective.regularizers.aer import AER
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.surrogates.archer import Archer
from trainer.objective.surrogates.aspo import ASPO
from trainer.objective.surrogates.bapo import BAPO
from trainer.objective.surrogates.ce_gppo import CEGPPO
from trainer.objective.surrogates.cispo import CISPO
from trainer.objective.surrogates.dppo import DPPO
from trainer.objective.surrogates.gmpo import GMPO
from trainer.objective.surrogates.gspo import GSPO
from trainer.objective.surrogates.kl_cov import KLCov
from trainer.objective.weights.clip_cov import ClipCov
from trainer.objective.weights.entropy_discriminator import EntropyDiscriminator
from trainer.objective.weights.forking import Forking
from trainer.objective.weights.rand_pos_clip import RandPosClip
from trainer.objective.weights.sign_balance import SignBalance
from trainer.objective.weights.steer import Steer

ABOUT_CONFIGURATION = ("builds", "rejects_unknown_keys", "neutral_is_plain")

ENTROPIC = EntroPIC(proportional=0.1, estimate="exact", target_entropy=9.0)
ENTROCRAFT = Entrocraft(estimate="exact", target_entropy=9.0)
SKYWORK = Skywork(start=0.1, estimate="exact", target_entropy=9.0)
CASES = {
    "gspo": from_member("surrogate", GSPO(clip_low=0.1, clip_high=0.1)),
    "ce_gppo": from_member("surrogate", CEGPPO(clip_low=0.1, clip_high=0.1)),
    "gmpo": from_member("surrogate", GMPO(clip_low=0.2, clip_high=0.2)),
    "archer": from_member("surrogate", Archer(clip=0.05, clip_entropic=0.3, quantile=0.5)),
    "aspo": from_member("surrogate", ASPO(clip=0.05, clip_entropic=0.3, quantile=0.5, max_weight=1.2)),
    "bapo": from_member("surrogate", BAPO(low_start=0.8, low_end=0.95, high_start=1.05, high_end=1.1)),
    "dppo kl": from_member("surrogate", DPPO(divergence="kl", delta=1e-3)),
    "cispo": from_member("surrogate", CISPO(clip_low=0.2, clip_high=0.2)),
    "kl_cov": from_member("surrogate", KLCov(top_frac=0.3, coef=0.5)),
    "clip_b": from_member("weight", EntropyDiscriminator(mu=0.5, sides="both")),
    "clip_v": from_member("weight", EntropyDiscriminator(baseline="vocabulary", mu=0.5, max_frac=0.2)),
    "clip_cov": from_member("weight", ClipCov(frac=0.3, cov_low=0.1)),
    "rand_pos_clip": from_member("weight", RandPosClip(frac=0.4)),
    "forking": from_member("weight", Forking(frac=0.4, renormalise=False)),
    "steer exact": from_member("weight", Steer(estimator="exact")),
    "steer linear": from_member("weight", Steer(mode="linear", estimator="released", clip_indicator=False)),
    "aer": from_member("regularizer", AER(coef=0.3, accuracy_max=0.8)),
    "aer driven": Case(
        objective=plain(
            regularizer={"aer": AER()}, controller={"aer": AERController(start=0.2, target_frac=2.0, gain=0.1)}
        ),
        members={"controller.aer": AERController()},
    ),
    "skywork exact": Case(
        objective=plain(regularizer={"entropy_bonus": EntropyBonus()}, controller={"skywork": SKYWORK}),
        members={"controller.skywork": SKYWORK},
    ),
    "entropic exact": Case(
        objective=plain(weight={"sign_balance": SignBalance()}, controller={"entropic": ENTROPIC}),
        members={"controller.entropic": ENTROPIC},
    ),
    "entrocraft exact": Case(
        objective=plain(advantage=OneSided(), controller={"entrocraft": ENTROCRAFT}),
        members={"controller.entrocraft": ENTROCRAFT},
    ),
    "repo": from_member("advantage", REPO(zeta=0.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ not in ABOUT_CONFIGURATION])
@pytest.mark.parametrize("name", CASES)
def test_member_that_acts(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_it_acts(name: str) -> None:
    batch = off_policy(Toy())
    assert Bench(Toy()).step(CASES[name].objective, batch).distance(Bench(Toy()).step(plain(), batch)) > 1e-3
