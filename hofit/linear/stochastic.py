"""A sparse matrix whose factor would not fit: solved by conjugate gradients, its determinant estimated by probes.

log det H = log det P + log det M (see ``coloured``), and log det M is the mean of zᵀ log(M) z over random signs z, by
Lanczos' method. The signs are the same at every point, so that the estimate is a function as smooth as the determinant,
and its gradient is that of this function: a fit goes to the minimum of something, and how far that is from the minimum
of the exact one is told by how the probes differ.

That H is positive definite is known only as far as Lanczos' method sees it: from the lowest Ritz values.

Source: Kündig & Sigrist (2024), "Iterative methods for full-scale Gaussian process approximations and crossed random
effects"; Ubaru, Chen & Saad (2017); Hutchinson (1990); Sidén, Lindgren, Bolin & Villani (2018), "Efficient covariance
approximations for large sparse precision matrices", J. Comput. Graph. Stat. 27 (of the inverse's diagonal).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import torch
from torch import Tensor

from .coloured import Coloured, Sweeps
from .krylov import EXHAUSTED
from .lanczos import Krylov, krylov
from .operator import MEMORY_BUDGET, Factor, Spectrum
from .sparse import Sparse
from .spectrum import lowest_by_inverse_iteration

GROUPS = 16
"""Groups of probes, of which each has a gradient of its own: how they differ tells the error of the whole."""

STEPS = 300
"""Steps of Lanczos' method, and twice as many of conjugate gradients, at most."""

USUAL, ROOM = 24, 5
"""Steps that memory is left for, and how many times those that a sign takes, if these are more."""

SETTLED = 0.6
"""Power of eps that Lanczos' method is driven to: value and gradient then agree to 1e-9 or so."""

SOLVED = 0.8
"""Power of eps that residuals are driven to, relative."""

SIGN = 0.01
"""Residual at which the lowest Ritz value of a random start tells signs: near enough for a step to be tried."""

ENTRIES = 2**15
"""Entries that are multiplied at once: their numbers stay in the cache."""


class Stochastic(Sparse):
    """As ``Sparse``, without a factor."""

    sparsity: Coloured

    def scaled(self, scale: Tensor) -> Stochastic:
        return Stochastic(self.sparsity, super().scaled(scale).values)

    def held(self, places: Tensor) -> Stochastic:
        return Stochastic(self.sparsity, super().held(places).values)

    def factor(self, shift: float = 0.0) -> StochasticFactor:  # type: ignore[override]
        return StochasticFactor(self.sparsity, self.values, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        return lowest_by_inverse_iteration(self, min(count, self.size))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the probes tell. Shapes: logarithms (N,), zᵀ log(M) z of each; slopes (G, S), the gradient of log det H by
    the values, of each group of probes; weights (G,), parts of all probes; draws (d, N), in swept order, whose
    covariance is H⁻¹. ``residual`` is what is left of M x = z, relative, the largest.

    An entry off the diagonal counts for both triangles.
    """

    logarithms: Tensor
    slopes: Tensor
    weights: Tensor
    draws: Tensor
    residual: float


class StochasticFactor(Factor):
    """See the module. Shape of values: (S,)."""

    def __init__(self, sparsity: Coloured, values: Tensor, shift: float = 0.0) -> None:
        self.sparsity, self._like = sparsity, values.detach()
        self._sweeps = Sweeps(sparsity, self._like, shift)
        self._eps, self._expected = float(torch.finfo(values.dtype).eps), USUAL
        diagonal = self._sweeps.diagonal
        self.positive = bool((diagonal > 0).all()) and bool(torch.isfinite(self._like).all())
        if not self.positive:
            if bool(torch.isfinite(diagonal).all()):
                self.direction = torch.zeros_like(diagonal)
                self.direction[sparsity.order[diagonal.argmin()]] = 1.0
        elif self._sweeps.rest:
            start = torch.randn(self._sweeps.rest, 1, generator=_generator(31), dtype=torch.float64).to(values)
            seen = krylov(self._sweeps.product, start, SIGN, STEPS)
            self._expected = min(STEPS, max(USUAL, ROOM * len(seen.basis)))
            self._look_at(seen)

    def _look_at(self, found: Krylov) -> bool:
        """Whether no Ritz value denies that H is positive definite."""
        if not found.lowest > 0:
            self.positive = False
            along = self._sweeps.half_transposed(self._sweeps.whole(found.direction()[:, None]))
            direction = along[self.sparsity.place, 0]
            self.direction = direction / direction.norm()
        return self.positive

    def solve(self, vectors: Tensor) -> Tensor:
        """nan where H turns out not to be positive definite."""
        flat = vectors.reshape(-1, self.sparsity.size)
        solved = self._sweeps.half(flat.T[self.sparsity.order])
        first = self.sparsity.first
        solved[first:] = self._by_gradients(solved[first:])
        return self._sweeps.half_transposed(solved)[self.sparsity.place].T.reshape(vectors.shape)

    def log_determinant(self) -> Tensor:
        return self._sweeps.diagonal.log().sum() + self.estimate.logarithms.mean()

    def slope(self) -> Tensor:
        """The gradient of the log determinant as it is estimated, by the values; shape (S,)."""
        return self.estimate.weights @ self.estimate.slopes

    def inverse_diagonal(self) -> Tensor:
        """1 / h_ii and, of the variance that the others bring, an estimate."""
        return (1 / self._sweeps.diagonal + self._brought)[self.sparsity.place]

    def spread(self) -> float:
        """Of the square roots of ``inverse_diagonal``, the largest standard error, relative."""
        share = self._brought / (1 / self._sweeps.diagonal + self._brought)
        return float(share.max()) / sqrt(2 * self.sparsity.probes)

    @cached_property
    def _brought(self) -> Tensor:
        """What the others add to the variance of each number, in swept order: as the draws have it."""
        seen = self._sweeps.off_diagonal(self.estimate.draws) / self._sweeps.diagonal[:, None]
        return seen.square().mean(1)

    def draw(self, noise: Tensor) -> Tensor:
        flat = noise.reshape(-1, self.sparsity.size).T[self.sparsity.order]
        first, parts = self.sparsity.first, []
        for some in flat.split(self._together(), 1):
            rest = some[first:]
            if len(rest):
                rest = krylov(self._sweeps.product, rest, self._eps**SETTLED, STEPS).inverse_roots()
            parts.append(self._sweeps.half_transposed(torch.cat([some[:first], rest])))
        return torch.cat(parts, 1)[self.sparsity.place].T.reshape(noise.shape)

    @cached_property
    def estimate(self) -> Estimate:
        """By the probes, kept. nan where a Ritz value is not positive."""
        sparsity, sweeps = self.sparsity, self._sweeps
        signs = 2 * torch.randint(0, 2, (sparsity.probes, sparsity.size), generator=_generator(29)) - 1
        probes = signs.to(self._like).T
        groups = torch.arange(sparsity.probes).tensor_split(min(GROUPS, sparsity.probes))
        logarithms, slopes, draws, residual = [], [], [], 0.0
        inverse = torch.zeros_like(self._like)
        inverse[sparsity.diagonal[sparsity.order]] = 1 / sweeps.diagonal
        together = max(1, self._together() // len(groups[0]))
        for some in (groups[first : first + together] for first in range(0, len(groups), together)):
            whole = probes[:, torch.cat(some)]
            rest = whole[sparsity.first :]
            if not len(rest):
                logarithms.append(self._like.new_zeros(whole.shape[1]))
                slopes += [inverse] * len(some)
                draws.append(sweeps.half_transposed(whole))
                continue
            space = krylov(sweeps.product, rest, self._eps**SETTLED, STEPS)
            if not self._look_at(space):
                unknown = torch.full_like(probes, torch.nan)
                return Estimate(unknown[0], inverse[None] * torch.nan, unknown[:1, 0], unknown, inf)
            residual = max(residual, space.residual)
            logarithms.append(space.logarithms())
            draws.append(sweeps.half_transposed(torch.cat([whole[: sparsity.first], space.inverse_roots()])))
            start = 0
            one, other = space.slopes()
            for group in some:
                part = slice(start, start + len(group))
                slopes.append(inverse + self._on_pattern(one[:, part], other[:, part]) / len(group))
                start += len(group)
        weights = self._like.new_tensor([len(group) / sparsity.probes for group in groups])
        return Estimate(torch.cat(logarithms), torch.stack(slopes), weights, torch.cat(draws, 1), residual)

    def _together(self) -> int:
        """Vectors whose Krylov spaces are built at once."""
        return max(1, MEMORY_BUDGET // max(1, self._expected * self._sweeps.rest * self._like.element_size()))

    def _on_pattern(self, one: Tensor, other: Tensor) -> Tensor:
        """xᵀ dM x summed over columns, by the values. Shapes: x, M x (rest, n, r) → (S,).

        With y = F⁻ᵀ x and s = D^(−½) M x it is yᵀ dH y − 2 yᵀ dF M x, dF = (dD + dL) D^(−½) − ½ F D⁻¹ dD.
        """
        sparsity, sweeps = self.sparsity, self._sweeps
        root = sweeps.root[:, None]
        x = sweeps.whole(one.flatten(1))
        s = sweeps.whole(other.flatten(1)) / root
        y = sweeps.half_transposed(x)
        found = torch.zeros_like(self._like)
        found[sparsity.diagonal[sparsity.order]] = (y.square() - 2 * y * s + s * x / root).sum(1)
        late, early = sparsity.ends
        difference = y - s
        parts = [
            (y.index_select(0, i) * difference.index_select(0, j)).sum(1)
            for i, j in zip(late.split(ENTRIES), early.split(ENTRIES), strict=True)
        ]
        if parts:
            found[sparsity.off] = 2 * torch.cat(parts)
        return found

    def _by_gradients(self, right: Tensor) -> Tensor:
        """M⁻¹ b by conjugate gradients, each column for itself. Shapes: (rest, k) → (rest, k)."""
        solution, residual, direction = torch.zeros_like(right), right, right
        square = residual.square().sum(0)
        wanted = self._eps ** (2 * SOLVED) * square
        for _ in range(2 * STEPS):
            active = square > wanted
            if not bool(active.any()):
                break
            image = self._sweeps.product(direction)
            curvature = (direction * image).sum(0)
            if bool((active & ~(curvature > EXHAUSTED * direction.square().sum(0) * self._eps)).any()):
                return torch.full_like(right, torch.nan)
            length = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
            solution = solution + length * direction
            residual = residual - length * image
            before, square = square, residual.square().sum(0)
            direction = residual + torch.where(active, square / torch.where(active, before, 1.0), 0.0) * direction
        return solution


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
