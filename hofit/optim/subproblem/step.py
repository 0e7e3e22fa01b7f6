"""What a trust-region subproblem answers, whichever way it was solved."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """The step p (d,), what the model falls by along it, and whether it ends on the boundary.

    ``length`` is that of p in the norm of the subproblem. ``shift`` is λ with (H + λI)p = −g, ``products`` counts
    Hessian-vector products: each is zero where the other way was taken.
    """

    step: Tensor
    predicted: float
    on_boundary: bool
    length: float
    shift: float = 0.0
    products: int = 0
