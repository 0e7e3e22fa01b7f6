"""Adaptive Gauss-Hermite quadrature over rows of a few numbers, in the place of Laplace's approximation.

Of a row r with mode û and curvature H = L Lᵀ, the integral ∫ exp(−f_r(u)) du is 2^(l/2) |H|^(−1/2) times the sum over
nodes z of w exp(|z|² − f_r(û + √2 L⁻ᵀ z)). One node is Laplace's approximation.

Source: Liu & Pierce (1994), "A note on Gauss-Hermite quadrature", Biometrika 81(3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import log, pi

import numpy as np
import torch
from torch import Tensor

from ..curvature.dense import flatten, unflatten
from ..curvature.joint import Joint
from ..curvature.layout import Candidate
from ..curvature.operator import MEMORY_BUDGET
from ..curvature.small import BlockCholesky
from ..errors import ModelError
from ..model.trace import Program
from ..point import Params

WIDEST = 3
"""Numbers of a row at most: the nodes are as many as ``nodes`` to this power."""

DEFAULT_NODES = 9

DIGITS = 64
"""A row's number is read off by digits to this base, so that it is found in single precision too."""

ATTEMPTS = 3
"""Places at which the derivatives are taken: one may vanish at the mode."""

CANCELLED = 0.4
"""The power of eps that is the part of an entry's largest derivative below which another of it may be rounding; also
how far, relative to it, a digit may lie from a whole number: 5e-7, or 2e-3 in single precision."""


class Quadrature:
    """Φ for the sites that ``methods`` integrates by aghq, Laplace's for the others.

    Args:
        methods: name → method.
        nodes: a dimension.
        jacobian: the latents whose transforms count.
    Raises: ModelError where the rows of a site are not independent, too wide, or shared with another method.
    """

    def __init__(self, program: Program, methods: Mapping[str, str], nodes: int, jacobian: Collection[str]) -> None:
        self._program, self._methods, self._nodes, self._jacobian = program, methods, nodes, jacobian
        self._rows: dict[int, Tensor] = {}
        self._terms = 0
        self._batched = True

    def __call__(self, joint: Joint) -> Tensor:
        total = joint.loss + 0.5 * joint.log_determinant()
        here = {name: joint.tape.leaf(name) for name in joint.names}
        base = self._densities(here)
        if len(base) != self._terms:
            self._rows, self._terms = {}, len(base)
        laplace = joint.layout.size
        for number, (group, matrix) in enumerate(self._groups(joint)):
            methods = {self._methods[name] for name in group.names}
            if methods == {"laplace"}:
                continue
            if len(methods) > 1:
                raise ModelError(f"{' and '.join(group.names)} form one row: integrate them by one method")
            count, length = group.index.shape
            if length > WIDEST:
                raise ModelError(
                    f"aghq: a row of {' and '.join(group.names)} has {length} numbers, and {WIDEST} are the most: "
                    "use laplace"
                )
            laplace -= count * length
            total = total - 0.5 * count * length * log(2.0) - self._group(joint, number, group, matrix, base)
        border = joint.layout.border_names if joint.layout.rows or laplace else ()
        apart = [name for name in border if self._methods[name] == "aghq"]
        if apart or (border and laplace < joint.layout.size):
            names = apart or [name for name, method in self._methods.items() if method == "aghq"]
            raise ModelError(f"aghq: the rows of {' and '.join(names)} are not independent of the others: use laplace")
        return total - 0.5 * laplace * log(2 * pi)

    def _groups(self, joint: Joint) -> list[tuple[Candidate, Tensor]]:
        """Rows with their matrices (R, L, L); a few numbers that are all there is are one row."""
        layout = joint.layout
        if layout.rows or len(layout.border) > WIDEST:
            return list(zip(layout.rows, joint.matrices, strict=True))
        return [(Candidate(layout.border_names, layout.border[None]), joint.corner[None])]

    def _group(self, joint: Joint, number: int, group: Candidate, matrix: Tensor, base: Tensor) -> Tensor:
        """Σ over the rows of a group of log Σ w exp(|z|² + f(û) − f(u)); shape ()."""
        count, length = group.index.shape
        mode = flatten({name: joint.tape.leaf(name) for name in joint.names}, joint.names)
        if number not in self._rows:
            self._rows[number] = self._row_of_each(joint, group, base)
        rows = self._rows[number]
        touched = rows >= 0
        factor = BlockCholesky(matrix)
        nodes, weights = _nodes(self._nodes, length, mode)
        away = 2.0**0.5 * factor.back_solve(nodes.T.expand(count, -1, -1)).permute(2, 0, 1)  # (nodes, R, L)
        moved = joint.tape.cut(mode.expand(len(nodes), -1).index_add(1, group.index.reshape(-1), away.flatten(1)))
        change = self._densities_at(moved, joint) - base
        if bool((change.detach()[:, ~touched] != 0).any()):
            raise ModelError(f"aghq: it cannot be told which observations the rows of {group.names[0]!r} reach")
        each = mode.new_zeros(len(nodes), count).index_add(1, rows[touched], change[:, touched])
        return torch.logsumexp(each + (weights + nodes.square().sum(1))[:, None], 0).sum()

    def _densities_at(self, places: Tensor, joint: Joint) -> Tensor:
        """The entries at flat places (k, d) of the integrated latents; shape (k, n)."""

        def at(place: Tensor) -> Tensor:
            return self._densities(unflatten(place, joint.slope, joint.names))

        if self._batched:
            try:
                chunk = max(1, MEMORY_BUDGET // (8 * max(1, self._terms)))
                found: Tensor = torch.vmap(at, chunk_size=chunk)(places)
                return found
            except (RuntimeError, ModelError):  # the model computes in a way that cannot be batched
                self._batched = False
        return torch.stack([at(place) for place in places.unbind()])

    def _densities(self, values: Params) -> Tensor:
        """The entries of the log density, the integrated latents at unconstrained ``values``; shape (n,)."""
        with self._program.substituted(values):
            return self._program.log_density_entries(self._jacobian)

    def _row_of_each(self, joint: Joint, group: Candidate, base: Tensor) -> Tensor:
        """Which row of a group each entry of the log density depends on; −1 where on none. Shape (n,).

        Along random sizes, once as they are and once times a digit of the row's number, an entry's two derivatives have
        the digit as their ratio.
        """
        count = group.index.shape[0]
        powers = [1]
        while powers[-1] * DIGITS < count:
            powers.append(powers[-1] * DIGITS)
        digits = [torch.arange(count) // power % DIGITS + 1 for power in powers]
        generator = torch.Generator().manual_seed(13)
        mode = flatten({name: joint.tape.leaf(name) for name in joint.names}, joint.names).detach()
        slopes = base.new_zeros(ATTEMPTS, 1 + len(digits), len(base))
        for attempt in range(ATTEMPTS):
            noise = torch.randn(mode.shape, generator=generator, dtype=torch.float64).to(mode)
            start = (mode + 0.3 * attempt * noise).requires_grad_()
            found = self._densities(unflatten(start, joint.slope, joint.names))
            dual = torch.zeros_like(found).requires_grad_()
            (back,) = torch.autograd.grad(found, start, dual, create_graph=True, materialize_grads=True)
            size = 0.5 + torch.rand(group.index.shape, generator=generator, dtype=torch.float64)
            if not back.requires_grad:
                continue
            for number, digit in enumerate([torch.ones(count), *digits]):
                direction = torch.zeros_like(mode)
                direction[group.index] = (size * digit[:, None]).to(mode)
                slopes[attempt, number] = torch.autograd.grad(
                    back, dual, direction, retain_graph=True, materialize_grads=True
                )[0]
        tolerance = torch.finfo(mode.dtype).eps ** CANCELLED
        slopes = torch.where(torch.isfinite(slopes).all(1, keepdim=True), slopes, 0.0)
        plain = slopes[:, 0]
        # A slope that cancels at one place, as of a count at its own mean, is rounding and tells of no row.
        seen = plain.abs() > tolerance * plain.abs().amax(0)
        row = torch.zeros(len(base), dtype=torch.long)
        for power, times in zip(powers, slopes.unbind(1)[1:], strict=True):
            ratio = torch.where(seen, times / torch.where(seen, plain, 1.0), 0.0)
            digit = ratio.round().amax(0)
            if bool((seen & ((ratio - digit).abs() > tolerance * digit)).any()):
                raise ModelError(f"aghq: an observation depends on several rows of {group.names[0]!r}: use laplace")
            row += power * (digit.long() - 1)
        return torch.where(seen.any(0), row, -1)


def _nodes(count: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of the product rule (k, length), and the logarithms of their weights (k,)."""
    places, weights = np.polynomial.hermite.hermgauss(count)
    grid = torch.cartesian_prod(*[torch.tensor(places)] * length).reshape(-1, length)
    logs = torch.cartesian_prod(*[torch.tensor(np.log(weights))] * length).reshape(-1, length).sum(1)
    return grid.to(like), logs.to(like)
