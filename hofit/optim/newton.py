"""Newton steps on independent rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import torch
from torch import Tensor

from ..curvature.rows import (
    Product,
    RowGroup,
    hessian_blocks,
    rows_by_last_dimension,
    rows_from_plates,
    rows_interact,
)
from ..errors import OptionError, StepImpossible
from ..patterns import matches, speaking_pattern
from ..point import ByRow, Params, Point
from ..record import PartReport
from .acceptance import ACCEPT, CUT, GOOD, POOR, ROUNDING, Acceptance
from .base import Optimizer, Proposal, State
from .differentiable import differentiable_product, shift_of_active_radius
from .options import option
from .spec import OptimizerSpec
from .subproblem.by_rows import RowSteps, solve_rows


@dataclass(frozen=True)
class Options:
    trust_radius: Mapping[str, float] | float | None = option(
        None, "a positive number, or pattern: number; infinite when left out"
    )
    adaptive: bool = option(False, "whether each row's radius follows how its steps turn out")


OPTIMIZER = OptimizerSpec.own(
    "newton",
    "Newton steps on independent rows, inside a fixed trust radius, or each row in one of its own",
    Options,
    lambda options: Newton(options.trust_radius, options.adaptive),
)

RESTING = 1e-12
"""Of a row's size: a shorter step is none."""

DENSE_LIMIT = 1000
"""Rows that interact are taken as one row up to this many numbers: 8 MB of Hessian, a second of eigenvectors."""


class RowsInteract(StepImpossible):
    """Rows that must be independent are not, and are too many for one dense row."""


class Newton(Optimizer):
    """Newton steps on independent rows, each inside a trust radius.

    Row n moves to the minimiser of m(p) = gᵀp + ½ pᵀHp subject to ‖p‖₂ ≤ Δ; H is the exact Hessian block of the row.
    With an infinite Δ a positive definite row takes its full Newton step; where it is not positive definite, directions
    of negative or no curvature go downhill by at most one unconstrained unit, never uphill and never into a saddle.
    Parameters in the same plates are joined row by row; any other parameter is one row. Rows may not interact while
    the other parameters are held: a random Hessian-vector probe checks it at steps 1, 2, 4, 8, …; rows that do
    interact are joined into one, and this is said.

    Δ is fixed, as in Pyro, unless ``adaptive``: then every row has its own, and moves only if its own part of the loss
    falls. That part is what the sites inside the row's plates add; where a step shows that rows act on other sites too
    (an index into the rows, ``b[group]``), the whole loss judges all rows of the group together. What the groups have
    found one by one is judged once more together.

    From plain Pyro code it is used as ``pyro.optim.multi.Newton``: a parameter's rows are then its last dimension, a
    scalar is one row of one, ``get_step`` is differentiable, and ``covariance`` holds H⁻¹ of the last step.

    Args:
        trust_radii: Δ in unconstrained units, positive: one number, or name or pattern → number; default infinite.
            A joined row takes the smallest of its members'. With ``adaptive`` it is where Δ starts.
        adaptive: whether Δ follows the ratio of actual to predicted reduction, row by row.
    Shapes: x, g (N, D); H and covariance (N, D, D); Δ (N,).
    Cost: D Hessian-vector products and one batched D × D factorisation; adaptive, up to three traces a group besides.
    Ends with: model_error if more than DENSE_LIMIT numbers interact.
    Raises: OptionError for a radius that is not positive.
    Source: Nocedal & Wright (2006), Alg. 4.1, 4.3 and section 3.4; Moré & Sorensen (1983).
    """

    name = OPTIMIZER.name
    second_order = True

    def __init__(
        self, trust_radii: Mapping[str, float] | float | None = Options.trust_radius, adaptive: bool = Options.adaptive
    ) -> None:
        radii = {} if trust_radii is None else trust_radii
        self.trust_radii: dict[str, float] = dict(radii) if isinstance(radii, Mapping) else {"*": float(radii)}
        for pattern, radius in self.trust_radii.items():
            if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not radius > 0:
                raise OptionError(f"trust_radius of {pattern!r} must be a positive number, not {radius!r}")
        if not isinstance(adaptive, bool):
            raise OptionError(f"adaptive must be true or false, not {adaptive!r}")
        self.adaptive = self.judges = adaptive
        self.acceptance = Acceptance()
        self._radii: dict[str, Tensor] = {}
        self._lengths: dict[str, Tensor] = {}
        self.covariance: Params = {}
        self._joined: set[tuple[str, ...]] = set()
        self._steps = 0

    def propose(self, point: Point) -> Proposal:
        names = self.own(point).names
        plain = {name: point.params[name] for name in names}
        groups = rows_from_plates(names, point.sites) if point.sites else rows_by_last_dimension(plain)
        gradient = point.gradient(differentiable=True)
        self._steps += 1
        params: Params = {}
        predicted = 0.0
        trial: Point | None = None
        self._lengths = {}
        for group in groups:
            updated, solution = self._step_of_group(group, point.params, gradient, point.hvp)
            updated = {name: value.detach() for name, value in updated.items()}
            if self.adaptive and solution is not None:
                updated, self._lengths[_key(group)], fall, trial = self._judged_rows(point, group, updated, solution)
            else:
                fall = nan if solution is None else float(solution.predicted.sum())
            params.update(updated)
            predicted += fall
        alone = trial if len(groups) == 1 and len(params) == len(point.params) else None
        return Proposal(params, predicted, alone)

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        if not self.adaptive:
            return True
        if proposal.predicted_reduction == 0.0:
            return False  # every row has refused its step and cut its radius already
        if self.acceptance.ratio(point, candidate, proposal, others) > ACCEPT:
            return True
        for key, length in self._lengths.items():
            self._radii[key] = torch.where(length > 0, CUT * length, self._radii[key])
        return False

    def restart(self) -> None:
        self.acceptance, self._radii = Acceptance(), {}

    def exhausted(self) -> bool:
        return self.adaptive and self.acceptance.exhausted

    def get_step(self, loss: Tensor, params: Params) -> Params:
        """The updated values, differentiable in whatever ``loss`` and ``params`` depend on; Pyro's ``get_step``."""
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is {float(loss.detach())}: no Newton step can be taken from it")
        self._steps += 1
        updated: Params = {}
        for group in rows_by_last_dimension(params):
            leaves = [params[name] for name in group.names]
            gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
            gradient = dict(zip(group.names, gradients, strict=True))
            values, _ = self._step_of_group(group, params, gradient, differentiable_product(group, params, gradients))
            updated.update(values)
        return updated

    def describe(self, point: Point) -> str | None:
        groups = rows_from_plates(self.own(point).names, point.sites)
        listed = "; ".join(f"{g.rows} row{'s'[: g.rows != 1]} of {g.length} ({', '.join(g.names)})" for g in groups)
        numbers = sum(g.rows * g.length**2 for g in groups)
        products, size = sum(g.length for g in groups), numbers * point.loss.element_size()
        return f"{listed}; {products} Hessian-vector products an iteration, {size / 2**20:.3g} MiB"

    def reports(self) -> list[PartReport]:
        adapted = [float(radii.min()) for radii in self._radii.values() if radii.numel()]
        radii = adapted if self.adaptive else self.trust_radii.values()
        return [PartReport(self.name, min(radii, default=None))]

    def remarks(self) -> list[str]:
        return [f"rows of {', '.join(names)} interact: newton took them as one row" for names in sorted(self._joined)]

    def state_dict(self) -> State:
        state: State = {"steps": self._steps, "joined": [list(names) for names in sorted(self._joined)]}
        adapted = {"radii": dict(self._radii), "judge": self.acceptance.state_dict()}
        return {**state, **adapted} if self.adaptive else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = int(state.get("steps", 0))
        self._joined = {tuple(names) for names in state.get("joined", [])}
        self._radii = dict(state.get("radii", {}))
        if "judge" in state:
            self.acceptance.load_state_dict(state["judge"])

    def _step_of_group(
        self, group: RowGroup, params: Params, gradient: Params, product: Product
    ) -> tuple[Params, RowSteps | None]:
        """The updated values, and how they came about; None where the derivatives are not finite."""
        if group.names in self._joined:
            group = group.as_one_row()
        x = group.to_rows({name: params[name].detach() for name in group.names})
        g = group.to_rows(gradient)
        blocks = hessian_blocks(group, product, x)
        finite = bool(torch.isfinite(blocks).all()) and bool(torch.isfinite(g).all())
        due = group.rows > 1 and self._steps.bit_count() == 1  # 1, 2, 4, 8, …
        if due and finite and rows_interact(group, blocks.detach(), product):
            if group.rows * group.length > DENSE_LIMIT:
                raise RowsInteract(
                    f"rows of {', '.join(group.names)} interact, and {group.rows * group.length} numbers are too "
                    f"many for one dense row ({DENSE_LIMIT}): give these parameters another optimizer"
                )
            self._joined.add(group.names)
            return self._step_of_group(group, params, gradient, product)
        radius = self._radius_of_rows(group, x)
        if not finite:
            return group.from_rows(torch.full_like(x, torch.nan)), None
        with torch.no_grad():
            solution = solve_rows(g.detach(), blocks.detach(), radius)
        curvature = blocks + solution.modification
        self._keep_covariance(group, curvature)
        if g.requires_grad:
            step = solution.extra - torch.linalg.solve(curvature, g[..., None])[..., 0]
            step = step - shift_of_active_radius(step, curvature.detach(), radius)
        else:
            step = solution.step
        return group.from_rows(x + step), solution

    def _radius_of_rows(self, group: RowGroup, like: Tensor) -> Tensor:
        """Δ of each row; shape (rows,)."""
        kept = self._radii.get(_key(group))
        if kept is not None and len(kept) == group.rows:
            return kept
        return torch.full((group.rows,), self._radius(group), dtype=like.dtype, device=like.device)

    def _judged_rows(
        self, point: Point, group: RowGroup, updated: Params, solution: RowSteps
    ) -> tuple[Params, Tensor, float, Point | None]:
        """The steps of the rows that keep their promise, their lengths (rows,), what they should lower the loss by, and
        the point if all of them do."""
        if group.names in self._joined:
            group = group.as_one_row()
        trial = point.at({**point.params, **updated})
        before, after = self._losses(point, trial, group)
        actual, predicted = before - after, solution.predicted
        noise = ROUNDING * torch.finfo(before.dtype).eps * before.abs()
        rounding = (predicted.abs() <= noise) & (actual.abs() <= noise)
        ratio = torch.where(predicted > 0, actual / predicted, torch.where(actual > 0, 1.0, -1.0))
        ratio = torch.where(rounding, 0.5, torch.nan_to_num(ratio, nan=-1.0))
        length = solution.step.norm(dim=-1)
        radius = self._radius_of_rows(group, length)
        grown = torch.where((ratio > GOOD) & (length >= 0.99 * radius), 2 * radius, radius)
        at = group.to_rows({name: point.params[name] for name in group.names}).norm(dim=-1)
        length = torch.where(length > RESTING * at, length, 0.0)  # a row at rest is none that went too far
        self._radii[_key(group)] = torch.where((ratio < POOR) & (length > 0), CUT * length, grown)
        kept = ratio > ACCEPT
        if bool(kept.all()):
            return updated, length, float(predicted.sum()), trial
        old = group.to_rows({name: point.params[name] for name in group.names})
        new = torch.where(kept[:, None], group.to_rows(updated), old)
        return group.from_rows(new), length * kept, float((predicted * kept).sum()), None

    def _losses(self, point: Point, trial: Point, group: RowGroup) -> tuple[Tensor, Tensor]:
        """The rows' own parts of the loss, before and after, if they are all that has changed; else the whole loss.

        Shapes: (rows,), or (1,).
        """
        whole = point.loss.detach().new_tensor([point.value]), point.loss.detach().new_tensor([trial.value])
        site = point.sites[group.names[0]]
        if group.rows == 1 or trial.failure is not None or not isinstance(point.source, ByRow):
            return whole
        plates = sorted(plate.name for plate in site.plates)
        before = point.source.losses_by_row(point.params, plates)
        after = point.source.losses_by_row(trial.params, plates)
        if before is None or after is None or before.numel() != group.rows or after.numel() != group.rows:
            return whole
        before, after = before.reshape(-1), after.reshape(-1)
        own, total = float((after - before).sum()), trial.value - point.value
        scale = float(before.abs().sum()) + abs(point.value)
        finite = bool(torch.isfinite(after).all())
        if finite and not abs(own - total) <= 1e-6 * abs(total) + ROUNDING * torch.finfo(before.dtype).eps * scale:
            return whole
        return before, after

    def _radius(self, group: RowGroup) -> float:
        patterns = [speaking_pattern(self.trust_radii, name) for name in group.names]
        return min(inf if pattern is None else float(self.trust_radii[pattern]) for pattern in patterns)

    def _keep_covariance(self, group: RowGroup, curvature: Tensor) -> None:
        inverse = torch.linalg.inv_ex(curvature)[0]
        for name in group.names:
            columns = group.columns(name)
            block = inverse[:, columns, columns]
            batch = [group.shapes[name][axis] for axis in group.axes[name]]
            self.covariance[name] = block.reshape(*batch, *block.shape[-2:])


def _key(group: RowGroup) -> str:
    return " ".join(group.names)


def unmatched_radii(trust_radius: object, names: Sequence[str]) -> list[str]:
    """Patterns of a ``trust_radius`` mapping that match none of the part's parameters."""
    patterns = trust_radius if isinstance(trust_radius, Mapping) else ()
    return [pattern for pattern in patterns if not any(matches(pattern, name) for name in names)]
