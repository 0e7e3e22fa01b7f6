"""Numbers rounded by their error, held against Python's exact decimals."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal

import pytest

from hofit.report.rounding import rounded, rounded_interval


@pytest.mark.parametrize("number", [251.40510484848485, 0.0813200753, -3.14159, 23.78, 104862.55, 0.0, 999.96])
@pytest.mark.parametrize("error", [6.632277, 0.32350247, 0.00995, 1.508, 37.2, 0.0997])
def test_a_number_keeps_the_place_of_the_third_digit_of_its_error(number: float, error: float) -> None:
    place = Decimal(f"{error:.2e}").adjusted() - 2
    exact = Decimal(number).quantize(Decimal(1).scaleb(place), rounding=ROUND_HALF_EVEN)
    shown = rounded(number, error)
    assert Decimal(shown) == exact
    assert shown.partition(".")[2] == f"{exact:f}".partition(".")[2]


@pytest.mark.parametrize(
    ("number", "error", "shown"),
    [
        (251405.3, 1234.0, "251410"),
        (-0.001, 1.0, "0.00"),
        (1.2345e-7, 3.2e-9, "1.2345e-07"),
        (6.02214e23, 1.5e20, "6.02214e+23"),
        (0.1234567891, None, "0.12345679"),
        (0.1234567891, 0.0, "0.12345679"),
        (0.1234567891, float("inf"), "0.12345679"),
        (float("inf"), 1.0, "inf"),
        (None, 1.0, ""),
    ],
)
def test_sizes_and_holes(number: float | None, error: float | None, shown: str) -> None:
    assert rounded(number, error) == shown


def test_the_end_of_a_positive_interval_is_not_shown_as_zero() -> None:
    intervals = [(0.0004, 2.34), (0.0, 2.34), (-0.0004, 1.26), (-1.23, -0.0004), (math.inf, math.inf)]
    shown = ["4.0e-04 … 2.34", "0.00 … 2.34", "0.00 … 1.26", "-1.23 … 0.00", "inf … inf"]
    assert [rounded_interval(*ends, 1.0, 1.0) for ends in intervals] == shown
