"""A loss and its Hessian over some of the parameters, all as functions that can be differentiated again.

What a Laplace approximation is made of: the loss at the mode, the gradient there, and the parts of the Hessian over the
integrated parameters, each of them with derivatives in every parameter, integrated or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..linear.coupling import Coupling, DenseCoupling
from ..linear.log_determinant import log_determinant
from ..linear.operator import Operator
from ..point import Params, TracedPoint, Watchable
from .assembly import Interaction, Maps, assembled
from .layout import Layout, structured
from .lifting.maps import IndexCache, LiftFailed
from .lifting.pieces import LiftedLoss
from .lifting.tape import Tape
from .proof import differ, probe


@dataclass(eq=False)
class Joint:
    """At one point. ``gradient`` of whatever is made of the others is a total derivative, over all parameters.

    Shapes: loss (); slope[name] that of the parameter, the gradient of the loss; for each group of the layout's rows a
    matrix (R, L, L) and a coupling (R, L, m); corner (m, m).
    """

    names: list[str]
    loss: Tensor
    slope: Params
    layout: Layout
    matrices: list[Tensor]
    couplings: list[Coupling]
    corner: Tensor
    tape: Tape

    def gradient(self, output: Tensor, create_graph: bool = False) -> Params:
        """d output / d parameters; shape of output ()."""
        return self.tape.gradient(output, create_graph)

    def operator(self) -> Operator:
        """The Hessian over ``names``, as numbers."""
        couplings = [one.detach() for one in self.couplings]
        return structured(self.layout, [one.detach() for one in self.matrices], couplings, self.corner.detach())

    def log_determinant(self) -> Tensor:
        """log det of the Hessian over ``names``; shape (). nan where it is not positive definite."""
        return log_determinant(self.matrices, self.couplings, self.corner)


class Joints:
    """Makes joints at point after point of one source; what one has learned of the model's maps serves the next."""

    def __init__(self, source: Watchable) -> None:
        self._source = source
        self._cache = IndexCache()
        self._events: dict[tuple[int, ...], int] = {}
        self._signature: str | None = None
        self._proved = False
        self._maps: Maps | None = None
        self._apart: Layout | None = None
        """The layout whose rows were seen to stay apart."""
        self.lifts = True

    def at(self, point: TracedPoint, names: Sequence[str], layout: Layout, lifts: bool) -> Joint:
        """The loss at ``point``, with its Hessian over ``names`` in a layout that holds there.

        ``lifts``: the model's linear maps can be lifted; else, or where that fails, products take their place.
        Raises: Interaction where rows are apart at this point only.
        """
        joint = None
        if lifts and self.lifts:
            try:
                joint = self._lifted(point, list(names), layout)
            except (LiftFailed, Interaction):
                self.lifts = False
        if joint is not None and self._apart is not layout:
            try:
                self._check_apart(joint, point)
                self._apart = layout
            except Interaction:
                joint, self.lifts = None, False
        if joint is None:
            joint = _by_products(self._source, point, list(names), layout)
        if self._apart is not layout:
            self._check_apart(joint, point)
            self._apart = layout
        return joint

    def explore(self, point: TracedPoint, names: Sequence[str]) -> None:
        """Learn at ``point`` how far entries interact. At a start they may not: where a correlation is zero."""
        everything = list(point.params)
        with suppress(LiftFailed):
            lifted = LiftedLoss(
                point.leaves, partial(self._source.evaluate, point, everything), self._cache, self._events, names
            )
            lifted.take_apart(prove=True)

    def _lifted(self, point: TracedPoint, names: list[str], layout: Layout) -> Joint:
        everything = list(point.params)
        lifted = LiftedLoss(
            point.leaves,
            partial(self._source.evaluate, point, everything),
            self._cache,
            self._events,
            names,
            differentiable=True,
        )
        if lifted.signature != self._signature or (self._maps is not None and self._maps.layout is not layout):
            self._signature, self._proved, self._maps = lifted.signature, False, None
        pieces = lifted.take_apart(prove=not self._proved)
        if self._maps is None:
            self._maps = Maps(layout, lifted, point.params, names)
        parts = assembled(lifted, pieces, self._maps)
        joint = Joint(names, _in_own_dtype(lifted.total, point), lifted.gradient, layout, *parts, lifted.tape)
        if not self._proved:
            self._check(joint, point)
            self._proved = True
        return joint

    def _check_apart(self, joint: Joint, point: TracedPoint) -> None:
        """Hold the slope of the rows' part of the Hessian against autograd's own.

        What couples two rows may vanish here and have a slope: a correlation that starts at zero. Without it the
        determinant has its value, but not its gradient. Raises: Interaction.
        """
        rows = joint.layout.rows
        if not rows:
            return
        plain = _by_products(self._source, point, joint.names, None)
        together = [one for k, one in enumerate(rows) if not _stay_apart(joint, plain, [k])]
        if together:
            raise Interaction([name for one in together for name in one.names])
        if len(rows) > 1 and not _stay_apart(joint, plain, range(len(rows))):
            raise Interaction([name for one in rows[1:] for name in one.names])

    def _check(self, joint: Joint, point: TracedPoint) -> None:
        """Hold gradient and Hessian against autograd's own."""
        noise = probe(joint.loss.new_empty(joint.layout.size))
        ours = joint.operator().matvec(noise)
        plain = _by_products(self._source, point, joint.names, None)
        pairs = [(joint.slope[name].detach(), plain.slope[name].detach()) for name in plain.slope]
        pairs.append((ours, _product(plain, noise).detach()))
        tolerance = 1e9 * torch.finfo(noise.dtype).eps
        for found, expected in pairs:
            scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
            if expected.numel() and not float((found - expected).abs().max()) <= tolerance * scale:
                raise LiftFailed("derivatives are others when the model is watched")
        border = noise[joint.layout.border]
        vector = torch.zeros_like(noise)
        vector[joint.layout.border] = border
        if not _same_slope(joint, border @ joint.corner @ border, plain, vector):
            raise LiftFailed("what vanishes in the Hessian here has a slope")


def _in_own_dtype(loss: Tensor, point: TracedPoint) -> Tensor:
    """In the parameters' dtype: data of another make the loss of theirs."""
    return loss.to(next(iter(point.leaves.values())).dtype)


def _by_products(source: Watchable, point: TracedPoint, names: list[str], layout: Layout | None) -> Joint:
    """Every column of the structure by a product that can be differentiated again; no Hessian without a layout."""
    leaves = point.leaves
    loss = _in_own_dtype(source.evaluate(point, list(leaves), nullcontext()), point)
    found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
    slope = dict(zip(leaves, found, strict=True))
    like = loss.new_empty(0)
    nothing = layout or Layout(sum(leaves[name].numel() for name in names), (), torch.zeros(0, dtype=torch.long), ())
    joint = Joint(names, loss, slope, nothing, [], [], like.new_zeros(0, 0), Tape(leaves))
    if layout is None:
        return joint
    m = len(layout.border)
    columns = []
    for place in layout.border.tolist():
        unit = like.new_zeros(layout.size)
        unit[place] = 1.0
        columns.append(_product(joint, unit))
    border = torch.stack(columns) if m else like.new_zeros(0, layout.size)  # (m, d)
    corner = border[:, layout.border]
    joint.corner = (corner + corner.T) / 2
    longest = max((one.index.shape[1] for one in layout.rows), default=0)
    answers = []
    for c in range(longest):
        unit = like.new_zeros(layout.size)
        for one in layout.rows:
            if c < one.index.shape[1]:
                unit[one.index[:, c]] = 1.0
        answers.append(_product(joint, unit))
    for one in layout.rows:
        block = torch.stack([answer[one.index] for answer in answers[: one.index.shape[1]]], -1)  # (R, L, L)
        joint.matrices.append((block + block.transpose(-1, -2)) / 2)
        joint.couplings.append(DenseCoupling(border[:, one.index].permute(1, 2, 0)))
    return joint


def _stay_apart(joint: Joint, plain: Joint, groups: Sequence[int]) -> bool:
    """Whether the rows of some groups are all that vᵀHv has a slope of, where v is a probe on them and else zero."""
    noise, parts = probe(joint.loss.new_empty(joint.layout.size)), []
    vector = torch.zeros_like(noise)
    for k in groups:
        index = joint.layout.rows[k].index
        rows = vector[index] = noise[index]  # (R, L)
        parts.append((joint.matrices[k] * rows[:, :, None] * rows[:, None, :]).sum())
    return _same_slope(joint, torch.stack(parts).sum(), plain, vector)


def _same_slope(joint: Joint, ours: Tensor, plain: Joint, vector: Tensor) -> bool:
    """Whether ``ours`` () has the slope of vᵀHv, v being ``vector`` (d,), in every parameter."""
    found = joint.gradient(ours)
    expected = plain.gradient((vector * _product(plain, vector)).sum())
    # Of a parameter on which it does not depend the slope is rounding, of the size that it has elsewhere.
    largest = max((float(true.abs().max()) for true in expected.values() if true.numel()), default=0.0)
    floor = 1e3 * torch.finfo(vector.dtype).eps * largest
    return not any(differ(found[name], true, floor=floor) for name, true in expected.items())


def _product(joint: Joint, vector: Tensor) -> Tensor:
    """H v over the joint's names, differentiable; shape (d,)."""
    slope = Coordinates.of(joint.slope, joint.names).flatten(joint.slope)
    if not slope.requires_grad:
        return torch.zeros_like(vector)
    leaves = [joint.tape.leaf(name) for name in joint.names]
    found = torch.autograd.grad(slope, leaves, vector, create_graph=True, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in found])
