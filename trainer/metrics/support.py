"""Which problems training gained and lost against the base model: SRR, NDR, SDS, NSCR.

Pure arithmetic on counts. Source: specification 11 (arXiv 2507.14843).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Numbers of problems by who solves them. A ratio with an empty denominator is 0 throughout."""

    preserved: int
    """P: solved by the base model and by the trained one."""
    expanded: int
    """E: solved by the trained model only."""
    lost: int
    """S: solved by the base model only (shrinkage)."""
    unsolved: int
    """O: solved by neither."""

    @property
    def srr(self) -> float:
        """Support retention rate P / (P + S)."""
        return _ratio(self.preserved, self.preserved + self.lost)

    @property
    def ndr(self) -> float:
        """Net discovery rate E / (P + E)."""
        return _ratio(self.expanded, self.preserved + self.expanded)

    @property
    def sds(self) -> float:
        """Support dynamic score, the harmonic mean 2 SRR NDR / (SRR + NDR)."""
        return _ratio(2.0 * self.srr * self.ndr, self.srr + self.ndr)

    @property
    def nscr(self) -> float:
        """Net support change rate (E - S) / (P + E + S)."""
        return _ratio(self.expanded - self.lost, self.preserved + self.expanded + self.lost)

    def metrics(self) -> dict[str, float]:
        """The four ratios and the four counts by bare name."""
        ratios = {name: getattr(self, name) for name in ("srr", "ndr", "sds", "nscr")}
        return ratios | {name: float(getattr(self, name)) for name in ("preserved", "expanded", "lost", "unsolved")}


def support(base_solved: ArrayLike, solved: ArrayLike) -> Support:
    """Compare correct answers per problem [P] of the base model and of the trained one; a problem with at least one is
    solved.

    Both must come from the same problems in the same order and from equally many samples; only the first is checked
    here.
    """
    base, now = np.asarray(base_solved) > 0, np.asarray(solved) > 0
    if base.shape != now.shape:
        raise ValueError(f"support got {base.shape} base counts and {now.shape} counts; evaluate the same problems")
    return Support(
        preserved=int((base & now).sum()),
        expanded=int((~base & now).sum()),
        lost=int((base & ~now).sum()),
        unsolved=int((~base & ~now).sum()),
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0
