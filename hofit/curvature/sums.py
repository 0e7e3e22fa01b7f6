"""Sums over the observations of a lifted loss, by what they are summed for."""

from __future__ import annotations

from torch import Tensor

from ..linear.operator import MEMORY_BUDGET
from .lifting.maps import Entry, IndexCache, Matrix, accumulated, summed
from .placement import TermProduct

CACHED_ROWS = 4096
"""Rows of a constant matrix to one product: they stay in the processor's cache."""


class Sums:
    """Sums of weights · coefficients over observations: one that is asked for again is not computed again."""

    def __init__(self, cache: IndexCache) -> None:
        self._cache = cache
        self._seen: dict[int, int] = {}
        self._values: dict[tuple[int, ...], Tensor] = {}
        self._totals: dict[tuple[int, ...], Tensor] = {}

    def value(self, product: TermProduct) -> tuple[tuple[int, ...], Tensor]:
        """weights · coefficients (without the factors), with its key."""
        terms = (product.left, product.right)
        factors = [t.coefficient for t in terms if isinstance(t, Entry) and t.coefficient is not None]
        # In the order in which they were first seen: an order by address would round differently from run to run.
        factors.sort(key=lambda c: self._seen.setdefault(id(c), len(self._seen)))
        key: tuple[int, ...] = (id(product.weights),)
        value = product.weights
        self._values.setdefault(key, value)
        for coefficient in factors:
            key = (*key, id(coefficient))
            if key not in self._values:
                self._values[key] = value * coefficient
            value = self._values[key]
        return key, value

    def by_row(self, key: tuple[int, ...], value: Tensor, rows: Tensor, count: int) -> Tensor:
        """Sums over the observations of each row; shape (count,)."""
        key = (*key, id(rows))
        if key not in self._totals:
            index, total = summed(self._cache, rows, value)
            self._totals[key] = accumulated(self._cache, value.new_zeros(count), index, total)
        return self._totals[key]

    def whole(self, key: tuple[int, ...], value: Tensor) -> Tensor:
        """The sum over all observations; shape ()."""
        key = (*key, 0)
        if key not in self._totals:
            self._totals[key] = value.sum()
        return self._totals[key]


def crossed(weights: Tensor, left: Matrix, right: Matrix) -> Tensor:
    """Σ weights · left rowsᵀ right rows, of two constant matrices; shape (K of the left, K of the right)."""
    weights = weights.reshape(-1)
    one, other = left.matrix.reshape(len(weights), -1), right.matrix.reshape(len(weights), -1)
    total = one.new_zeros(one.shape[1], other.shape[1])
    for start in range(0, len(weights), CACHED_ROWS):
        part = slice(start, start + CACHED_ROWS)
        total.addmm_(one[part].T, weights[part, None] * other[part])
    return total


def gathered(cache: IndexCache, matrix: Tensor, value: Tensor, index: Tensor, count: int) -> Tensor:
    """Σ value · matrix rows, by index. Shape (count, K)."""
    total = matrix.new_zeros(count, matrix.shape[1])
    if single(cache, index) is not None:
        total[int(index[0])] = value @ matrix
        return total
    chunk = max(1, MEMORY_BUDGET // max(1, 8 * matrix.shape[1]))
    for start in range(0, len(value), chunk):
        part = slice(start, start + chunk)
        total.index_add_(0, index[part], matrix[part] * value[part, None])
    return total


def single(cache: IndexCache, index: Tensor) -> int | None:
    """The one value of an index map, where it has only one."""
    low, high = cache.of("bounds", (index,), lambda: (int(index.min()), int(index.max())))
    return low if low == high else None
