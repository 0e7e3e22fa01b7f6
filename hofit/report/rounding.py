"""Numbers as people read them: to the digits that their standard error leaves."""

from __future__ import annotations

import math

SMALL, LARGE = 1e-4, 1e10
"""Outside of these a number is written with an exponent."""

DIGITS, DIGITS_WITHOUT_ERROR = 3, 8
"""Of an error that are shown, and of a number that has none."""


def exponent_of(error: float) -> int:
    """The power of ten of a number that was rounded to DIGITS: 0.09997 is 0.100, of −1."""
    return int(f"{error:.{DIGITS - 1}e}".partition("e")[2])


def rounded(number: float | None, error: float | None, largest: float | None = None) -> str:
    """``number`` to the place of the last of DIGITS of ``error``; to eight digits where there is no error.

    ``largest`` decides whether there is an exponent, so that an estimate, its error and its interval look alike.
    """
    if number is None:
        return ""
    if not math.isfinite(number):
        return str(number)
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{number:.{DIGITS_WITHOUT_ERROR}g}"
    place, size = exponent_of(error) - DIGITS + 1, max(abs(number), error, abs(largest or 0.0))
    if SMALL <= size < LARGE:
        shown = f"{round(number, -place):.{max(0, -place)}f}"
    else:
        digits = max(0, exponent_of(abs(number)) - place) if number else 0
        shown = f"{number:.{digits}e}"
    return shown if float(shown) else shown.lstrip("-")


def rounded_interval(lower: float, upper: float, error: float | None, largest: float) -> str:
    """Both ends in the same way; but where all is positive none is zero, so that it keeps two of its own."""
    shown = [rounded(end, error, largest) for end in (lower, upper)]
    if lower > 0 and not float(shown[0]):
        shown[0] = f"{lower:.1e}"
    return " … ".join(shown)
