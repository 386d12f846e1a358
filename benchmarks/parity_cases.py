"""What ``benchmarks.parity`` compares: a peer's function, the members of ours that should be the same, and in words
where we depart and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.objective.advantages.grpo import GRPO
from trainer.objective.advantages.grpo_passk import GRPOPassK
from trainer.objective.advantages.opo import OPO
from trainer.objective.advantages.rloo import RLOO
from trainer.objective.reductions import Constant, SequenceMean, SequenceSum
from trainer.objective.regularizers.kl_reference import KLReference
from trainer.objective.surrogates.cispo import CISPO
from trainer.objective.surrogates.dppo import DPPO
from trainer.objective.surrogates.dro import DRO
from trainer.objective.surrogates.gmpo import GMPO
from trainer.objective.surrogates.gspo import GSPO
from trainer.objective.surrogates.kl_cov import KLCov
from trainer.objective.surrogates.luspo import LUSPO
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.sapo import SAPO
from trainer.objective.surrogates.vespo import VESPO
from trainer.objective.weights.clip_cov import ClipCov
from trainer.objective.weights.forking import Forking

LENGTH = 8
"""Tokens of the longest response of the batch."""
WEIGHTS_ONLY = "gradients alone: their value is that of log-probs, ours that of the weights"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One function of a peer and what should be the same here."""

    method: str
    peer: str
    function: str
    """Theirs, for the table."""
    settings: Mapping[str, Any]
    """What ``parity_peers.py`` calls it with."""
    ours: Mapping[str, Any]
    """Members by slot, beside those of plain GRPO."""
    note: str = ""
    """Where our defaults or our definition depart, and why."""
    value: bool = True
    """Whether the loss itself is compared, and not its gradient alone."""

    @property
    def name(self) -> str:
        return f"{self.method}, {self.peer}"


def trl(method: str, ours: Mapping[str, Any], note: str = "", *, value: bool = True, **settings: Any) -> Case:
    """A case of TRL's ``_compute_loss``."""
    shown = ", ".join(f"{key}={setting}" for key, setting in settings.items() if key != "gmpo")
    trainer = "GMPOTrainer" if settings.get("gmpo") else "GRPOTrainer"
    function = f"{trainer}._compute_loss({shown})"
    return Case(method=method, peer="trl", function=function, settings=settings, ours=ours, note=note, value=value)


def verl(method: str, ours: Mapping[str, Any], note: str = "", *, value: bool = True, **settings: Any) -> Case:
    """A case of verl's registered losses or advantage estimators."""
    key = "advantage" if "advantage" in settings else "loss"
    function = f"core_algos, {key} {settings[key]}"
    return Case(method=method, peer="verl", function=function, settings=settings, ours=ours, note=note, value=value)


CLIP = {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
BOTH = {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2}
BY_SEQUENCE = {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.08}
BY_RESPONSE = {"reduction": "seq-mean-token-mean"}
HIGH = PPOClip(clip_low=0.2, clip_high=0.28)

CASES = (
    trl("GRPO", {"reduction": SequenceMean()}, "our default reduction is DAPO's token mean", loss_type="grpo"),
    trl("DAPO", {"surrogate": HIGH}, loss_type="dapo", epsilon_high=0.28),
    trl(
        "Dr. GRPO",
        {"reduction": Constant(length=LENGTH)},
        loss_type="dr_grpo",
        max_completion_length=LENGTH,
    ),
    trl("dual clip", {"surrogate": PPOClip(dual_clip=1.5)}, loss_type="dapo", delta=1.5),
    trl(
        "KL to the reference",
        {"regularizer": {"kl": KLReference(coef=0.04)}, "reduction": SequenceMean()},
        "TRL's default also multiplies k3 by the ratio (arXiv 2512.02556); ours is DeepSeekMath's, as in verl",
        loss_type="grpo",
        beta=0.04,
        use_bias_correction_kl=False,
    ),
    trl(
        "forking tokens",
        {"surrogate": HIGH, "weight": {"forking": Forking(renormalise=False)}},
        "theirs is our `forking_tokens_released`; the paper divides by the tokens that are kept. Their quantile is "
        "float32: a token exactly at it may fall out",
        loss_type="dapo",
        epsilon_high=0.28,
        top_entropy_quantile=0.2,
    ),
    trl(
        "GSPO",
        {"surrogate": GSPO(clip_low=0.05, clip_high=0.08), "reduction": SequenceMean()},
        loss_type="grpo",
        **BY_SEQUENCE,
    ),
    trl(
        "LUSPO",
        {"surrogate": LUSPO(clip_low=0.05, clip_high=0.08), "reduction": SequenceSum()},
        loss_type="luspo",
        **BY_SEQUENCE,
    ),
    trl(
        "CISPO",
        {"surrogate": CISPO(clip_high=0.3)},
        "their epsilon_high is the bound itself, our clip_high is what it adds to 1",
        loss_type="cispo",
        epsilon_high=1.3,
    ),
    trl(
        "SAPO",
        {"surrogate": SAPO(), "reduction": SequenceMean()},
        "theirs comes with the mean per response, ours with the run's reduction",
        loss_type="sapo",
    ),
    trl("VESPO", {"surrogate": VESPO()}, WEIGHTS_ONLY, value=False, loss_type="vespo"),
    trl(
        "GMPO",
        {"surrogate": GMPO(), "reduction": SequenceMean()},
        gmpo=True,
        epsilon_low=0.4,
        epsilon_high=0.4,
    ),
    verl(
        "DAPO",
        {"surrogate": PPOClip(clip_low=0.2, clip_high=0.28, dual_clip=3.0)},
        "dual_clip is theirs by default, and off by ours",
        loss="vanilla",
        config=CLIP,
    ),
    verl(
        "GSPO",
        {"surrogate": GSPO(clip_low=0.05, clip_high=0.08), "reduction": SequenceMean()},
        loss="gspo",
        config={"clip_ratio": 0.2, "clip_ratio_low": 0.05, "clip_ratio_high": 0.08},
        **BY_RESPONSE,
    ),
    verl("SAPO", {"surrogate": SAPO(), "reduction": SequenceMean()}, loss="sapo"),
    verl(
        "GMPO",
        {"surrogate": GMPO(), "reduction": SequenceMean()},
        loss="geo_mean",
        config={"clip_ratio": 0.4, "clip_ratio_low": 0.4, "clip_ratio_high": 0.4},
    ),
    verl(
        "CISPO",
        {"surrogate": CISPO(clip_low=0.2, clip_high=0.2)},
        "their lower bound is off by default here, as in the paper",
        loss="cispo",
        config=BOTH,
    ),
    verl(
        "DPPO-TV",
        {"surrogate": DPPO(delta=0.05)},
        WEIGHTS_ONLY,
        value=False,
        loss="dppo_tv",
        config={"clip_ratio": 0.05, "clip_ratio_low": 0.05, "clip_ratio_high": 0.05, "clip_ratio_c": 20.0},
    ),
    verl(
        "DPPO-KL",
        {"surrogate": DPPO(divergence="kl", delta=0.01)},
        WEIGHTS_ONLY,
        value=False,
        loss="dppo_kl",
        config={"clip_ratio": 0.01, "clip_ratio_low": 0.01, "clip_ratio_high": 0.01, "clip_ratio_c": 20.0},
    ),
    verl("DRO", {"surrogate": DRO(beta=0.7)}, loss="dro", policy_loss={"dro_beta": 0.7}),
    verl(
        "Clip-Cov",
        {"weight": {"clip_cov": ClipCov(frac=1.0, cov_low=0.2, cov_high=5.0)}},
        "all of the band is drawn, because draws differ; ours are over the mini-batch, theirs over a micro-batch",
        loss="clip_cov",
        config=BOTH,
        policy_loss={"clip_cov_ratio": 1.0, "clip_cov_lb": 0.2, "clip_cov_ub": 5.0},
    ),
    verl(
        "KL-Cov",
        {"surrogate": KLCov(top_frac=0.1)},
        "one micro-batch; over several, theirs selects in each",
        loss="kl_cov",
        policy_loss={"kl_cov_ratio": 0.1, "ppo_kl_coef": 1.0},
    ),
    verl("GRPO advantages", {"advantage": GRPO()}, advantage="grpo"),
    verl("RLOO", {"advantage": RLOO()}, advantage="rloo"),
    verl("OPO", {"advantage": OPO()}, advantage="opo"),
    verl("pass@k of the best", {"advantage": GRPOPassK()}, advantage="grpo_passk"),
)
