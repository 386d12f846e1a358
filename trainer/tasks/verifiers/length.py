"""Length penalty in characters, for tasks; ``shaping=overlong`` is DAPO's in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from trainer.contract.settings import ConfigError, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """0 up to ``free`` characters, -1 from ``limit`` on, linear between."""

    weight: float = 0.1
    free: Annotated[int, Range(0)] = 2000
    limit: Annotated[int, Range(1)] = 4000

    def __post_init__(self) -> None:
        if self.free >= self.limit:
            raise ConfigError(f"verifier length: free={self.free} is not below limit={self.limit}: raise limit")

    def score(self, response: str, data: Mapping[str, object]) -> float:
        """See the class."""
        over = (len(response) - self.free) / (self.limit - self.free)
        return -min(1.0, max(0.0, over))
