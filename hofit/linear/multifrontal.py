"""The numeric side of a sparse factorisation: sweeps over the groups of fronts, from leaves to roots or back.

H = L Lᵀ. Of a front, the pivots' block is D = L₁₁ L₁₁ᵀ once all below it have been subtracted, and the rows become
L₂₁ = R L₁₁⁻ᵀ. A panel is the numbers of all fronts; the factor takes the place of the matrix in it.

Source: Duff & Reid (1983); Takahashi, Fagan & Chin (1973), "Formation of a sparse bus impedance matrix and its
application to short circuit study"; Erisman & Tinney (1975), "On computing certain elements of the inverse of a sparse
matrix", CACM 18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dense import congruent, inverse_of, times
from .elimination import Elimination, Group
from .updates import Updates

SPARSE_MIDDLE = 256
"""Pivots of a root from which it pays to look how few of them a change touches."""


SINGLE_MIDDLE = 1000
"""Pivots of a root from which its part of a second derivative is computed in single precision, in 0.6 of the time: an
entry errs by 1e-6 of the largest, a sum over them, which is all that is asked for, by 1e-9 of itself."""


@dataclass(frozen=True)
class Failure:
    """The first pivot that is not positive: its group, its front in the group, its number among the front's pivots."""

    group: int
    front: int
    pivot: int


def assembled(elimination: Elimination, values: Tensor) -> Tensor:
    """A panel that holds a matrix. Shapes: values (S,) → (length,)."""
    panel = values.new_zeros(elimination.length)
    panel[elimination.padding] = 1.0
    return panel.index_add_(0, elimination.address, values)


def factorise(elimination: Elimination, panel: Tensor, stop: int | None = None) -> Failure | None:
    """The groups up to ``stop``, in place; where a pivot is not positive it ends there."""
    for number, group in enumerate(elimination.groups[:stop]):
        blocks, below = group.blocks(panel), group.below(panel)
        failure = _factorised(number, blocks)
        if failure is not None:
            return failure
        if group.updates is not None:
            if group.pivots == 1:
                below.div_(blocks)
            else:
                torch.linalg.solve_triangular(blocks.mT, below, upper=True, left=False, out=below)
            group.updates.subtract(panel, below, below, symmetric=True)
    return None


def _factorised(number: int, blocks: Tensor) -> Failure | None:
    """Cholesky's factors of a group's blocks, in place; the first of those that have none."""
    if blocks.shape[-1] == 1:
        pivots = blocks.view(-1)
        if float(pivots.min()) > 0:  # false where one is nan
            pivots.sqrt_()
            return None
        front = int((~(pivots > 0)).nonzero()[0])
        return Failure(number, front, 0)
    failed = torch.empty(len(blocks), dtype=torch.int32, device=blocks.device)
    torch.linalg.cholesky_ex(blocks, out=(blocks, failed))
    if not bool(failed.any()):
        return None
    front = int(failed.nonzero()[0])
    return Failure(number, front, int(failed[front]) - 1)


def forward(elimination: Elimination, panel: Tensor, vectors: Tensor) -> None:
    """L⁻¹ v, in place. Shape: (places, k)."""
    for group in elimination.groups:
        own = group.vectors(vectors)
        own.copy_(_solved(group.blocks(panel), own, upper=False))
        if group.updates is not None:
            group.updates.spread(vectors, group.below(panel), own)


def backward(elimination: Elimination, panel: Tensor, vectors: Tensor, start: int | None = None) -> None:
    """L⁻ᵀ v, in place, from the group before ``start`` down. Shape: (places, k)."""
    for group in reversed(elimination.groups[:start]):
        own = group.vectors(vectors)
        if group.updates is not None:
            own -= group.below(panel).mT @ group.updates.taken(vectors)
        own.copy_(_solved(group.blocks(panel).mT, own, upper=True))


def refused_direction(elimination: Elimination, values: Tensor, failure: Failure) -> Tensor:
    """Along which the curvature is the pivot that failed. Shapes: values (S,) → (places,).

    With A the front's leading block and a the column of the pivot in it, that is (−A⁻¹ a, 1) in the front, whose
    curvature the pivot is, and what follows from it below the front. The block is formed anew: LAPACK leaves nothing
    of it that is sure.
    """
    panel = assembled(elimination, values)
    factorise(elimination, panel, failure.group)
    group = elimination.groups[failure.group]
    block, pivot = group.blocks(panel)[failure.front], failure.pivot
    vectors = panel.new_zeros(elimination.places, 1)
    own = group.vectors(vectors)[failure.front]
    own[pivot] = 1.0
    if pivot:
        lower = torch.linalg.cholesky_ex(block[:pivot, :pivot])[0]
        own[:pivot] = -torch.cholesky_solve(block[pivot, :pivot, None], lower)
    backward(elimination, panel, vectors, failure.group)
    return vectors[:, 0]


def selected_inverse(elimination: Elimination, panel: Tensor) -> Tensor:
    """H⁻¹ on the pattern of L, as a panel: Z₂₁ = −Z₂₂ Y and Z₁₁ = L₁₁⁻ᵀ L₁₁⁻¹ − Yᵀ Z₂₁ with Y = L₂₁ L₁₁⁻¹."""
    inverse = torch.empty_like(panel)
    inverse[0] = 0.0
    for group in reversed(elimination.groups):
        lower, own = group.blocks(panel), group.blocks(inverse)
        if group.updates is None:
            _invert(lower, own)
            continue
        root = _inverse_root(lower)
        reduced = group.below(panel) @ root
        across = group.below(inverse)
        group.updates.product(inverse, reduced, out=across)
        across.neg_()
        # The result is symmetric: it may be written to memory in rows, which products do faster.
        torch.bmm(root.mT, root, out=own.mT)
        own.mT.baddbmm_(reduced.mT, across, alpha=-1)
    return inverse


def selected_derivative(elimination: Elimination, panel: Tensor, inverse: Tensor, values: Tensor) -> Tensor:
    """−H⁻¹ V H⁻¹ on the pattern of L, as a panel: how the selected inverse changes along V. Shape: values (S,).

    Both sweeps are differentiated: the factor's change from the leaves up, dL₁₁ = L₁₁ Φ(L₁₁⁻¹ dD L₁₁⁻ᵀ) with Φ the
    lower triangle and half the diagonal, and the inverse's from the roots down. A root has its own formula.
    """
    change = _factor_derivative(elimination, panel, values)
    result = torch.empty_like(panel)
    result[0] = 0.0
    for group in reversed(elimination.groups):
        own = group.blocks(result)
        if group.updates is None:
            own.copy_(_congruent(group.blocks(inverse), group.blocks(change)).neg_())
            continue
        root = _inverse_root(group.blocks(panel))
        root_change = -root @ group.blocks(change) @ root
        below, below_change = group.below(panel), group.below(change)
        reduced = below @ root
        reduced_change = below_change @ root + below @ root_change
        # Z₂₂ Y = −Z₂₁ is there. Of dZ₁₁ = d(L₁₁⁻ᵀ L₁₁⁻¹ + Yᵀ Z₂₂ Y) all but Yᵀ dZ₂₂ Y is a matrix and its transpose.
        half = root.mT @ root_change - reduced_change.mT @ group.below(inverse)
        across, further = torch.empty_like(reduced), group.below(result)
        group.updates.product(result, reduced, out=across)
        torch.add(half, half.mT, out=own.mT)
        own.mT.baddbmm_(reduced.mT, across)
        group.updates.product(inverse, reduced_change, out=further)
        further.add_(across).neg_()
    return result


def second_traces(elimination: Elimination, panel: Tensor, inverse: Tensor, values: Tensor) -> Tensor:
    """tr(H⁻¹ V H⁻¹ W) of every two of some matrices, the selected inverse being known. Shapes: (k, S) → (k, k).

    What eliminating a front leaves of it is, of its pivots, tr(N M) with N = L₁₁⁻¹ dD L₁₁⁻ᵀ and M the same along W, and
    of its rows 2 tr(Z₂₂ Q Rᵀ) with Q = dB L₁₁⁻ᵀ − L₂₁ N; above it the same is asked with V and W as they arrive there.
    """
    changes = values.new_zeros(len(values), elimination.length).index_add_(1, elimination.address, values)
    total = values.new_zeros(len(values), len(values))
    for group in elimination.groups:
        moved = [k for k, one in enumerate(changes) if bool(group.blocks(one).any()) or bool(group.below(one).any())]
        if group.updates is None:
            middles = _products(group.blocks(inverse), [group.blocks(changes[k]) for k in moved])
            eliminated: list[tuple[Tensor, Tensor | None, Tensor | None]] = [(one, None, None) for one in middles]
        else:
            eliminated = [_eliminated(group, group.updates, panel, inverse, changes[k]) for k in moved]
        for i, (middle, rest, _) in enumerate(eliminated):
            for j, (other, _, image) in enumerate(eliminated[: i + 1]):
                trace = (middle * other.mT).sum(dtype=total.dtype)
                if rest is not None and image is not None:
                    trace = trace + 2.0 * (rest * image).sum()
                total[moved[i], moved[j]] += trace
    return total.tril() + total.tril(-1).T


def _eliminated(
    group: Group, updates: Updates, panel: Tensor, inverse: Tensor, change: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """N, Q and Z₂₂ Q of a group's fronts; what their elimination changes above them goes into ``change``.

    Z₂₂ L₂₁ = −Z₂₁ L₁₁ is there: where dB is zero, as along the diagonal, there is no product to be taken with Z₂₂.
    """
    lower, below, across = group.blocks(panel), group.below(panel), group.below(change)
    half = _right(_symmetric(group.blocks(change)), lower)  # L₁₁ N
    middle = _right(half.mT, lower)
    if not bool(across.any()):
        rest, image = below @ middle.neg(), group.below(inverse) @ half
        updates.subtract(change, rest, below, symmetric=True)
        return middle, rest, image
    across = _right(across, lower)
    rest = across - below @ middle
    updates.subtract(change, (across + rest).contiguous(), below, symmetric=False)
    image = torch.empty_like(rest, memory_format=torch.contiguous_format)
    updates.product(inverse, rest, out=image)
    return middle, rest, image


def _factor_derivative(elimination: Elimination, panel: Tensor, values: Tensor) -> Tensor:
    """dL as a panel; at a root the change of the block that was factorised there, the lower triangle."""
    change = values.new_zeros(elimination.length).index_add_(0, elimination.address, values)
    for group in elimination.groups:
        if group.updates is None:
            continue
        lower, below = group.blocks(panel), group.below(panel)
        own, own_below = group.blocks(change), group.below(change)
        middle = _right(_right(_symmetric(own), lower).mT, lower).tril()
        middle.diagonal(dim1=1, dim2=2).mul_(0.5)
        torch.bmm(middle.mT, lower.mT, out=own.mT)
        own_below.copy_(_right(own_below - below @ own.mT, lower))
        group.updates.subtract(change, 2.0 * own_below, below, symmetric=False)
    return change


def _symmetric(lower: Tensor) -> Tensor:
    return lower.tril() + lower.tril(-1).mT


def _congruent(inverse: Tensor, middle: Tensor) -> Tensor:
    """Z M Z, of M the lower triangle. A large M that is zero but for a few places or the diagonal is taken as such."""
    whole = _symmetric(middle)
    if len(middle) == 1 and middle.shape[-1] >= SINGLE_MIDDLE:
        size, unit = inverse.abs().amax(), whole.abs().amax().clamp_min(torch.finfo(whole.dtype).tiny)
        found = congruent((inverse[0] / size).float(), (whole[0] / unit).float())
        return found[None].to(whole) * (size * unit * size)
    if len(middle) == 1 and middle.shape[-1] >= SPARSE_MIDDLE:
        return congruent(inverse[0], whole[0])[None]
    return inverse @ whole @ inverse


def _products(inverse: Tensor, changes: Sequence[Tensor]) -> list[Tensor]:
    """Z M for some M, the lower triangles; of a large root in single precision. Shapes: (B, p, p)."""
    if len(inverse) > 1 or inverse.shape[-1] < SPARSE_MIDDLE:
        return [inverse @ _symmetric(one) for one in changes]
    if inverse.shape[-1] < SINGLE_MIDDLE:
        return [times(inverse[0], _symmetric(one)[0])[None] for one in changes]
    size = inverse.abs().amax()
    single, found = (inverse[0] / size).float(), []
    for one in changes:
        unit = one.abs().amax()  # not zero
        found.append(times(single, _symmetric((one / unit).float())[0]).mul_(size * unit)[None])
    return found


def _right(vectors: Tensor, lower: Tensor) -> Tensor:
    """X L⁻ᵀ. Shapes: (B, u, p), (B, p, p)."""
    if lower.shape[-1] == 1:
        return vectors / lower
    solved: Tensor = torch.linalg.solve_triangular(lower.mT, vectors, upper=True, left=False)
    return solved


def _solved(triangle: Tensor, vectors: Tensor, upper: bool) -> Tensor:
    """Shapes: (B, p, p), (B, p, k) → (B, p, k)."""
    if triangle.shape[-1] == 1:
        return vectors / triangle
    solved: Tensor = torch.linalg.solve_triangular(triangle, vectors, upper=upper)
    return solved


def _inverse_root(lower: Tensor) -> Tensor:
    """L⁻¹. Shape (B, p, p)."""
    if lower.shape[-1] == 1:
        return 1.0 / lower
    unit = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return _solved(lower, unit.expand_as(lower), upper=False)


def _invert(lower: Tensor, out: Tensor) -> None:
    """(L Lᵀ)⁻¹. Shapes: (B, p, p)."""
    if lower.shape[-1] == 1:
        torch.square(lower, out=out).reciprocal_()
    elif len(lower) == 1:
        inverse_of(lower[0], out[0])
    else:
        out.copy_(torch.cholesky_inverse(lower))
