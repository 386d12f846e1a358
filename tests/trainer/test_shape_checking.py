"""A tensor of the wrong shape raises anywhere in the suite (helpers/shape_checking.py)."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from trainer.batch.types import TokenTerms
from trainer.metrics import estimators

pytest.importorskip("beartype")


def transposed(values: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """A function whose result contradicts its signature."""
    return values.T


def test_arguments_of_unequal_lengths_raise() -> None:
    two, three = torch.zeros(2), torch.zeros(3)
    assert estimators.covariance(three, three).shape == (3,)
    with pytest.raises(TypeCheckError, match="covariance"):
        estimators.covariance(two, three)


def test_columns_of_unequal_sizes_raise() -> None:
    with pytest.raises(TypeCheckError, match="TokenTerms"):
        TokenTerms(logprobs=torch.zeros(2, 3), entropy=torch.zeros(2, 4))


def test_a_result_of_another_shape_raises() -> None:
    from shape_checking import check

    checked = jaxtyped(transposed, typechecker=check)
    assert checked(torch.zeros(2, 2)).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="return value"):
        checked(torch.zeros(2, 3))
