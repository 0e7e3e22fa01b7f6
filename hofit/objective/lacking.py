"""Derivatives of a density that torch lacks, and by what differences those of the evidence are had then."""

from __future__ import annotations

from collections.abc import Iterable

from ..model.program import Program
from ..point import Params
from .leaves import Leaves

INSTEAD = {
    2: ("second", "the curvature and the gradient of the evidence are taken by differences of the density's gradient"),
    3: ("third", "the gradient of the evidence is taken by differences of its second"),
    4: ("fourth", "the curvature of the evidence is taken by differences of its gradient"),
}
"""Order → what it is called, and what is done where there is none."""


class Lacking:
    """Which derivatives of a program's density torch was seen to lack: it raises, or gives nan."""

    def __init__(self, program: Program, leaves: Leaves) -> None:
        self._program, self._leaves = program, leaves
        self._sites: dict[int, str] = {}
        """Order → the site, and the function there."""

    def __bool__(self) -> bool:
        return bool(self._sites)

    def up_to(self, order: int) -> bool:
        """Whether one of this order is lacking: where a lower one is, there is no higher."""
        return any(lacking <= order for lacking in self._sites)

    def look(self, places: Iterable[Params], *orders: int, error: RuntimeError | None = None) -> bool:
        """Whether a derivative of one of these orders is lacking at all of some places, or torch's ``error`` says so.

        At all: far out, where a scale is e⁻²⁴, it may be too large to tell. The leaves are written.
        """
        tried = [place for place in places if place]
        for order in orders:
            found = [self._site_at(place, order) for place in tried]
            if found[0] is not None and None not in found:
                self._sites[order] = found[0]
                return True
        if error is not None:
            self._sites[orders[-1]] = f"the model ({str(error).strip().splitlines()[0]})"
        return error is not None

    def _site_at(self, place: Params, order: int) -> str | None:
        self._leaves.write(place)
        return self._program.site_without_derivative(order)

    def remarks(self) -> list[str]:
        return [
            f"differences: torch has no {INSTEAD[order][0]} derivative of {site}, so {INSTEAD[order][1]}"
            for order, site in self._sites.items()
        ]
