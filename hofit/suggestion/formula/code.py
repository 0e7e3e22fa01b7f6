"""What the parts of a written module have in common."""

from __future__ import annotations

import textwrap

from .design import Design, Parameter
from .names import INTERCEPT

WIDTH = 120
"""Of a line, in signs."""


def fixed_terms(design: Design, product: str) -> list[str]:
    """The fixed part of the predictor: an intercept alone needs no matrix."""
    if is_constant(design.fixed):
        return [design.fixed[0].name]
    return [product] if design.fixed else []


def is_constant(parameters: list[Parameter]) -> bool:
    """Whether there is an intercept, and nothing else."""
    return [one.label for one in parameters] == [INTERCEPT]


def quoted(text: str) -> str:
    """The text as a literal, in the quotes that ruff takes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def wrapped(text: str) -> list[str]:
    """Lines of a docstring."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
