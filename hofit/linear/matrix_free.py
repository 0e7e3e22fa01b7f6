"""A Hessian of which only products with vectors are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MatrixFree:
    """A symmetric matrix (d, d) known by its products; it cannot be factored, and so it is no ``Operator``.

    Args:
        product: one Hessian-vector product a row, (k, d) → (k, d).
        size: d.
        like: an empty tensor of the dtype and on the device of the entries.
    """

    product: Callable[[Tensor], Tensor]
    size: int
    like: Tensor

    def matvec(self, vectors: Tensor) -> Tensor:
        """H v. Shapes: (…, d) → (…, d)."""
        flat = vectors.flatten(0, -2) if vectors.dim() > 1 else vectors[None]
        return self.product(flat).reshape(vectors.shape)

    def scaled(self, scale: Tensor) -> MatrixFree:
        """diag(s) H diag(s). Shape of ``scale``: (d,)."""
        return replace(self, product=lambda vectors: self.product(vectors * scale) * scale)

    def sizes(self) -> Tensor:
        """One each: the diagonal would cost a product for each unknown. Shape (d,)."""
        return self.like.new_ones(self.size)

    def memory(self) -> int:
        """Bytes that the entries take: there are none."""
        return 0
