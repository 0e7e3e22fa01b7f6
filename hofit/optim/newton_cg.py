"""Newton steps by truncated conjugate gradients inside a trust region: for many parameters that all interact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.rows import RowGroup, hessian_blocks, rows_from_plates
from ..errors import OptionError
from ..linear.block_diagonal import BlockDiagonal, Blocks
from ..linear.operator import Factor
from ..point import Point
from .acceptance import InsideRadius, forcing, without_leap
from .base import Proposal, State
from .options import option
from .spec import OptimizerSpec
from .subproblem.truncated import PRODUCTS, truncated_step

PRECONDITIONERS = ("auto", "none", "rows")


@dataclass(frozen=True)
class Options:
    preconditioner: str = option("auto", f"blocks of the rows of plates: {', '.join(PRECONDITIONERS)}", PRECONDITIONERS)
    initial_radius: float | None = option(None, "a positive number; found from the first step when left out")


OPTIMIZER = OptimizerSpec.own(
    "newton_cg",
    "Newton steps by conjugate gradients inside a trust region: products with the Hessian only",
    Options,
    lambda options: NewtonCG(options.preconditioner, options.initial_radius),
)

ROW_LIMIT = 16
"""Row lengths up to which ``auto`` pays a product for each column of the rows' blocks: one batched pass."""

REFRESH = 5
"""Accepted steps after which the preconditioner is made anew."""

FLOOR = 1e-6
"""The least eigenvalue of a block of the preconditioner, relative to its largest."""


class NewtonCG(InsideRadius):
    """Newton's method with products only: truncated conjugate gradients inside a trust region.

    The step goes down m(p) = gᵀp + ½ pᵀHp inside ‖p‖_M ≤ Δ until the residual is below min(½, √‖g‖)·‖g‖, a direction
    of negative curvature leads to the boundary, or the boundary is met. M is the block diagonal of |H| that the plates
    give: a row for each index of a plate, a row for each parameter outside of plates. So Δ is in the loss's own units
    (½Δ² is about what a full step may gain) wherever M is known; without a preconditioner it is in the parameters'.
    M is renewed every REFRESH accepted steps. The first Δ is the length of the first step.

    A step is accepted when the loss falls by at least a ten thousandth of what the model predicted.

    From plain Pyro code, which hands over a bare loss, no trial point can be evaluated: ``step(loss, params)`` takes
    every step, whatever it does to the loss, and there is no preconditioner.

    Args:
        preconditioner: ``rows``: the blocks of all rows; ``auto``: of rows up to ROW_LIMIT numbers, and of longer ones
            a multiple of the identity; ``none``.
        initial_radius: Δ at the start, or None.
    Shapes: p, g (d,); blocks (R, L, L).
    Cost: one Hessian-vector product an inner iteration; L products a group of rows when M is renewed.
    Raises: OptionError.
    Source: Steihaug (1983); Nocedal & Wright (2006), Alg. 7.2 and 4.1; Conn, Gould & Toint (2000), section 7.5.
    """

    name = OPTIMIZER.name
    second_order = True

    def __init__(
        self, preconditioner: str = Options.preconditioner, initial_radius: float | None = Options.initial_radius
    ) -> None:
        if preconditioner not in PRECONDITIONERS:
            raise OptionError(f"preconditioner must be one of {', '.join(PRECONDITIONERS)}, not {preconditioner!r}")
        super().__init__(initial_radius)
        self.preconditioner = preconditioner
        self._blocks: list[Tensor] | None = None
        self._factor: Factor | None = None
        self._steps = 0
        self._due = True

    def propose(self, point: Point) -> Proposal:
        own = self.own(point)
        gradient = own.flatten(point.gradient(differentiable=True))
        if self._due:
            self._renew(point, own)
        elif self._factor is None and self._blocks is not None:
            self._factor = _factored(_groups(point, own.names, self.preconditioner), self._blocks, own)
        factor = self._factor

        def product(vector: Tensor) -> Tensor:
            return own.flatten(point.hvp(own.unflatten(vector[None])))[0]

        solution = truncated_step(
            product,
            gradient,
            inf if self.radius.value is None else self.radius.value,
            (lambda v: v) if factor is None else factor.solve,
            forcing(point),
            min(PRODUCTS, max(2 * gradient.numel(), 2)),
        )
        if self.radius.value is None and solution.length > 0:
            self.radius.value = solution.length
        solution = without_leap(own, point, solution, gradient, product)
        return Proposal(self.moved(point, solution.step), solution.predicted, step=solution)

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        accepted = super().accept(point, proposal, candidate, others)
        if accepted:
            self._steps += 1
            self._due = self._steps % REFRESH == 0
        return accepted

    def restart(self) -> None:
        super().restart()
        self._blocks, self._factor, self._due = None, None, True

    def describe(self, point: Point) -> str | None:
        return f"Hessian-vector products alone, at most {PRODUCTS} an iteration"

    def state_dict(self) -> State:
        state = {**super().state_dict(), "steps": self._steps, "due": self._due}
        return state if self._blocks is None else {**state, "blocks": list(self._blocks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._steps, self._due = int(state["steps"]), bool(state["due"])
        self._blocks, self._factor = state.get("blocks"), None

    def _renew(self, point: Point, own: Coordinates) -> None:
        """Make the preconditioner of the Hessian at this point."""
        self._due, self._factor, self._blocks = False, None, None
        groups = _groups(point, own.names, self.preconditioner)
        if not groups:
            return
        blocks = []
        for group, whole in groups:
            like = point.params[group.names[0]]
            found = hessian_blocks(group, point.hvp, like) if whole else _mean_square(group, point, like)
            blocks.append(_positive(found.detach()))
        self._blocks = blocks
        self._factor = _factored(groups, blocks, own)


def _groups(point: Point, names: Sequence[str], preconditioner: str) -> list[tuple[RowGroup, bool]]:
    """The groups of rows, and whether their whole blocks are wanted; none where there is nothing to precondition by."""
    if preconditioner == "none" or not point.sites:
        return []
    groups = [group for group in rows_from_plates(names, point.sites) if group.rows * group.length]
    wanted = [(group, preconditioner == "rows" or group.length <= ROW_LIMIT) for group in groups]
    return wanted if any(whole for _, whole in wanted) else []


def _mean_square(group: RowGroup, point: Point, like: Tensor) -> Tensor:
    """The root mean square of a probe's product, for every number alike. Shape (rows · length, 1, 1)."""
    generator = torch.Generator().manual_seed(23)
    signs = 2 * torch.randint(0, 2, (1, group.rows, group.length), generator=generator) - 1
    image = group.to_rows(point.hvp(group.from_rows(signs.to(like), batch=1)), batch=1)
    size = image.detach().square().mean().sqrt()
    return size.expand(group.rows * group.length, 1, 1)


def _positive(blocks: Tensor) -> Tensor:
    """The blocks with the sizes of their eigenvalues, none far below the largest. Shape (R, L, L)."""
    unit = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    finite = torch.isfinite(blocks).all(-1).all(-1)[:, None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, blocks, unit))
    sizes = values.abs()
    top = sizes.amax(-1, keepdim=True)
    top = torch.where(top > 0, top, top.max().clamp_min(0.0) + (top.max() == 0))
    floor = max(FLOOR, 100 * torch.finfo(blocks.dtype).eps)
    positive: Tensor = (vectors * torch.maximum(sizes, floor * top)[:, None, :]) @ vectors.mT
    return positive


def _factored(groups: Sequence[tuple[RowGroup, bool]], blocks: Sequence[Tensor], own: Coordinates) -> Factor | None:
    rows = []
    for (group, whole), matrices in zip(groups, blocks, strict=True):
        index = group.to_rows({name: own.numbers(name) for name in group.names})
        rows.append(Blocks(index if whole else index.reshape(-1, 1), (matrices + matrices.mT) / 2))
    factor = BlockDiagonal(rows).factor()
    return factor if factor.positive else None
