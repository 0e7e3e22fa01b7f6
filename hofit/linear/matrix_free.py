"""A Hessian of which only products with vectors are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MatrixFree:
    """A symmetric matrix (d, d) known by its products; it cannot be factored, and so it is no ``Operator``.

    Args:
        product: one Hessian-vector product a row, (k, d) → (k, d).
        size: d.
    """

    product: Callable[[Tensor], Tensor]
    size: int

    def matvec(self, vectors: Tensor) -> Tensor:
        """H v. Shapes: (…, d) → (…, d)."""
        flat = vectors.flatten(0, -2) if vectors.dim() > 1 else vectors[None]
        return self.product(flat).reshape(vectors.shape)

    def memory(self) -> int:
        """Bytes that the entries take: there are none."""
        return 0
