"""Products and inverses of dense symmetric matrices, against numpy's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hofit.linear.dense import INVERTED, congruent, inverse_of, times
from tests.tolerances import ROUNDING, close


def definite(size: int) -> Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return root @ root.T / size + torch.eye(size)


@pytest.mark.parametrize("size", [1, 7, 4 * INVERTED, 4 * INVERTED + 5])
@pytest.mark.parametrize("place", ["anew", "by rows", "by columns"])
def test_an_inverse_from_the_factor_is_that_of_numpy(size: int, place: str) -> None:
    matrix = definite(size)
    room = torch.full_like(matrix, torch.nan)
    out = {"anew": None, "by rows": room, "by columns": room.T}[place]
    found = inverse_of(torch.linalg.cholesky(matrix), out)
    assert close(found, torch.linalg.inv(matrix), ROUNDING)
    assert out is None or close(out, found, 0.0)


def test_a_large_inverse_is_taken_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = definite(4 * INVERTED)
    monkeypatch.setattr(torch, "cholesky_inverse", lambda lower: torch.full_like(lower, torch.nan))
    assert close(inverse_of(torch.linalg.cholesky(matrix)), torch.linalg.inv(matrix), ROUNDING)


@pytest.mark.parametrize("kind", ["dense", "diagonal", "few", "diagonal and few"])
def test_products_with_a_change_of_any_kind_are_those_of_the_whole(kind: str) -> None:
    inverse, middle = definite(40), definite(40)
    few = torch.zeros_like(middle)
    few[3:12, 3:12] = middle[3:12, 3:12]
    diagonal = middle.diagonal().diag()
    middle = {"dense": middle, "diagonal": diagonal, "few": few, "diagonal and few": few + diagonal}[kind]
    assert close(times(inverse, middle), inverse @ middle, ROUNDING)
    assert close(congruent(inverse, middle), inverse @ middle @ inverse, ROUNDING)
