"""The probe, and what it takes two products to be the same."""

from __future__ import annotations

import pytest
import torch

from hofit.curvature.proof import AGREEMENT, differ, probe, refutes


def test_no_two_entries_of_a_probe_are_alike_and_it_is_the_same_at_every_call() -> None:
    first = probe(torch.empty(50, 4))
    assert first.abs().unique().numel() == first.numel()
    assert torch.equal(first, probe(torch.empty(50, 4)))
    assert not torch.equal(first, probe(torch.empty(50, 4), 1))


def test_a_probe_is_of_its_likes_dtype() -> None:
    assert probe(torch.empty(3, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("size", [1e-100, 1.0, 1e100])
def test_products_differ_by_a_part_of_the_largest_number_whatever_its_units(size: float) -> None:
    true = size * torch.tensor([1.0, -3.0, 0.0])
    assert not differ(true * (1 + 0.9 * AGREEMENT), true)
    assert differ(true + size * torch.tensor([0.0, 0.0, 4 * AGREEMENT]), true)


def test_single_precision_may_differ_by_its_own_rounding() -> None:
    true = torch.tensor([1.0, -3.0], dtype=torch.float32)
    assert not differ(true * (1 + 5e-5), true)
    assert differ(true * (1 + 5e-4), true)


def test_what_is_empty_or_not_finite_tells_nothing() -> None:
    assert not differ(torch.empty(0), torch.empty(0))
    for odd in (torch.inf, torch.nan):
        assert not differ(torch.tensor([1.0, 2.0]), torch.tensor([odd, 2.5]))
        assert not differ(torch.tensor([odd, 2.0]), torch.tensor([1.0, 2.5]))


def test_no_number_is_refuted_by_a_number_and_by_nothing_else() -> None:
    true = torch.tensor([1.0, 2.0])
    assert refutes(torch.tensor([1.0, torch.nan]), true)
    assert refutes(torch.tensor([1.0, 2.1]), true)
    assert not refutes(true, true)
    assert not refutes(torch.tensor([torch.nan, 2.0]), torch.tensor([1.0, torch.nan]))


def test_what_is_rounding_beside_the_largest_is_no_difference() -> None:
    """A slope of 2e-16 beside one of 4e-16: independent rows passed for rows that interact, by luck."""
    ours, true = torch.tensor([2e-16]), torch.tensor([4e-16])
    assert differ(ours, true)
    assert not differ(ours, true, floor=1e3 * torch.finfo(true.dtype).eps)
