"""The Hessian of some parameters at point after point, in the structure that it was proved to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from math import isfinite
from typing import Any

import torch

from ..coordinates import Coordinates
from ..errors import StepImpossible
from ..linear.dense import Dense
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..point import Point, TracedPoint, Watchable
from .assembly import Interaction
from .choice import LayoutChoice
from .colouring import FEWEST, Colouring, coloured
from .cost import costs_less_sparse, products_cost_less
from .layout import Layout, candidates
from .lifting.maps import IndexCache, LiftFailed
from .lifting.pieces import LiftedLoss, Piece
from .pattern import hessian_parts
from .placement import Placement
from .probed import agrees, probed, probed_by_colours, product
from .proof import is_off, probe

FEW_UNKNOWNS, FEW_ENTRIES = 64, 20_000
"""Up to so many unknowns, and terms of the loss, products are taken and nothing is lifted."""


MANY_SITES, FEW_NUMBERS = 32, 16
"""More sites than this, of no more numbers each on average, have too many pairs of maps to be lifted."""

BESIDE = 0.1
"""Unconstrained units, about, that the place lies away at which it is looked for what is zero by chance."""


class Method(Enum):
    """How a Hessian is had: by lifting the model's linear maps; column by column, by products with it, where that
    fails or costs more; or not at all, products with it being all that there is."""

    LIFTED = "maps lifted"
    PROBED = "by products"
    MATRIX_FREE = "matrix_free"


class Curvature:
    """The Hessian over some parameters, at point after point.

    ``auto`` takes the finest structure that holds: rows of the plates that do not interact (diagonal where they have
    one number), with whatever they all touch as a border (arrowhead), dense, or Hessian-vector products alone where
    the border is too large. Linear maps of the model are lifted (see ``lifting``); where the model cannot be followed,
    products with probes take their place. Either way a random product proves the result at the first point, and again
    after every surprise. With ``probes`` the Hessian is taken on its pattern and never factorised: it is solved with by
    conjugate gradients, and its determinant estimated.

    Raises: OptionError for an unknown structure; StructureRefuted from ``at`` where a claimed one does not hold.
    """

    def __init__(self, structure: str = "auto", probes: int | None = None) -> None:
        self._choice, self.probes = LayoutChoice(structure, probes), probes
        self.method = Method.MATRIX_FREE if structure == "matrix_free" else Method.LIFTED
        self.why_not_lifted = ""
        self.layout: Layout | None = None
        self.colouring: Colouring | None = None
        """Where products take the Hessian, and it is sparse."""
        self._is_full = False
        self.products = 0
        """Hessian-vector products of the last Hessian."""
        self._names: list[str] = []
        self._cache = IndexCache()
        self._event_dims: dict[tuple[int, ...], int] = {}
        self._signature: str | None = None
        self._placement: Placement | None = None
        self._proved = False

    @property
    def lifts(self) -> bool:
        """Whether nothing but the loss is needed of a point; else a Hessian takes the gradient's graph."""
        return self.method is Method.LIFTED

    def choose_method(self, point: Point, names: Sequence[str]) -> None:
        """Settle what ``lifts`` says before a gradient is taken at ``point``: its graph may be wanted."""
        if not self.lifts or self.layout is not None or self._choice.probes is not None:
            return
        coordinates = Coordinates.of(point.params, names)
        if _is_small(point, coordinates):
            self.method, self.why_not_lifted = Method.PROBED, "the model is small"
        elif len(names) > MANY_SITES and coordinates.size <= FEW_NUMBERS * len(names):
            self.method, self.why_not_lifted = Method.PROBED, "many sites of few numbers"

    def at(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        """The Hessian over ``names``, flat in their order. Raises: StructureRefuted."""
        coordinates = Coordinates.of(point.params, names)
        if self._names != list(names):
            self._forget()
            self._names = list(names)
        if self.method is Method.MATRIX_FREE:
            return self._matrix_free(point, coordinates)
        self.choose_method(point, names)
        if self.lifts and point.source is not None:
            try:
                return self._lifted(point, coordinates)
            except LiftFailed as failure:
                self._forget()
                self.why_not_lifted = str(failure)
        if self._choice.probes is not None:
            why = f" ({self.why_not_lifted})" if self.why_not_lifted else ""
            raise StepImpossible(
                f"the Hessian of {', '.join(names)} could not be had by lifting the model's linear maps{why}: "
                "`logdet: stochastic` needs its pattern, take `logdet: exact`"
            )
        self.method = Method.PROBED
        return self._probed(point, coordinates)

    def take_together(self, names: Sequence[str]) -> None:
        """Say that rows of ``names`` interact, though not at the last point: the next Hessian has another layout."""
        assert self.layout is not None
        self._choice.take_together(self.layout, names)
        self.layout, self._placement, self._proved = None, None, False

    def remarks(self) -> list[str]:
        return self._choice.remarks()

    def describe(self, operator: Operator | MatrixFree) -> str:
        """What was found, and what a Hessian like ``operator`` takes: a phrase."""
        how = Method.LIFTED.value if self.lifts else Method.PROBED.value
        if self.why_not_lifted and not self.lifts:
            how += f" ({self.why_not_lifted})"
        if self.colouring is not None:
            entries = len(self.colouring.sparsity.rows)
            how += f", of {self.colouring.count} colours: a pattern of {entries} entries"
        what, products = Method.MATRIX_FREE.value, "Hessian-vector products as needed"
        if self.layout is not None:
            what, products = self.layout.describe(), f"{self.products} Hessian-vector products an iteration"
        return f"{what}; {how}; {products}, {operator.memory() / 2**20:.3g} MiB"

    def why_no_determinant(self, names: Sequence[str], size: int) -> str:
        """What to say where the Hessian is known by its products only, and its determinant is wanted."""
        why = f" ({self.why_not_lifted})" if self.why_not_lifted else ""
        if self._choice.too_large:
            return (
                f"the Hessian of {', '.join(names)} ({size} numbers) {self._choice.too_large}: with "
                "`logdet: stochastic` in the objective its determinant is estimated by probes, without a factor, and "
                "the fit says how far that leaves the loss and the estimates uncertain"
            )
        return (
            f"the Hessian of {', '.join(names)} ({size} numbers) was found neither sparse nor in rows{why}, and is "
            "too large to be taken whole: write what neighbours share by slices, `diff`, an index or a sparse matrix, "
            "so that each term of the density reads few numbers; where a sum over all before is read (`cumsum`, a "
            "product with a full matrix), take the sums themselves as the latents"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "lifts": self.lifts,
            "free": self.method is Method.MATRIX_FREE,
            "names": list(self._names),
            "rows": None if self.layout is None else [list(one.names) for one in self.layout.rows],
            "sparse": self.layout is not None and self.layout.sparsity is not None,
            "coarsened": self._choice.coarsened(),
            "full": self._is_full,
            "pattern": None if self.colouring is None else self.colouring.pattern.nonzero(),
            "signature": self._signature,
            "events": [[list(nodes), dims] for nodes, dims in sorted(self._event_dims.items())],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the same layout is taken, and proved again."""
        self._forget()
        self.method = Method.MATRIX_FREE if state["free"] else Method.LIFTED if state["lifts"] else Method.PROBED
        self._names, self._signature = list(state["names"]), state["signature"]
        self._choice.go_on(state["coarsened"], state["rows"], state.get("sparse", False))
        self._is_full = state.get("full", False)  # version 0.1.0 took a Hessian by rows, without colours
        places = state.get("pattern")
        if places is not None:
            m = int(places.max()) + 1
            pattern = torch.zeros(m, m, dtype=torch.bool)
            pattern[places[:, 0], places[:, 1]] = True
            self.colouring = coloured(pattern)
        self._event_dims.update({tuple(nodes): dims for nodes, dims in state["events"]})

    def _forget(self) -> None:
        """What was found; the next Hessian begins anew."""
        self.layout, self._placement, self._signature, self._proved = None, None, None, False
        self.colouring, self._is_full = None, False
        self._event_dims.clear()

    def _lifted(self, point: Point, coordinates: Coordinates) -> Operator | MatrixFree:
        lifted = self._watched(point, coordinates)
        if lifted.signature != self._signature:
            self._forget()
            self._signature = lifted.signature
        pieces = lifted.take_apart(prove=not self._proved)
        if not self._proved:
            _check_gradient(lifted, point)
        operator, asks = None, self._placement is None
        while operator is None:
            if self._placement is None:
                layout = self._choice.found(lifted, pieces, coordinates, point.sites)
                if layout is None:
                    return self._matrix_free(point, coordinates)
                self.layout, self._placement = layout, Placement(layout, lifted, coordinates)
            try:
                operator = hessian_parts(lifted, pieces, self._placement).operator()
            except Interaction as surprise:  # once at most: what is found for these pieces holds for them
                self._choice.check_border(surprise.names)
                self.layout, self._placement, self._proved = None, None, False
        self.products = 0
        # A map may multiply zero by infinity, and be nan, where autograd has a number: then the product decides. Where
        # autograd's is not finite either nothing is proved, and the proof is taken at the next point again.
        finite = isfinite(operator.matvec(operator.like.new_ones(operator.size)).sum())
        if not (self._proved and finite):
            if not agrees(operator, point, coordinates):
                raise LiftFailed("a random Hessian-vector product refutes what was lifted")
            self._proved = finite
        if asks and self._choice.probes is None and self._costs_less_by_products(lifted, pieces, point, operator):
            self.method, self.why_not_lifted, self._placement = Method.PROBED, "they cost less", None
            return self._probed(point, coordinates)
        return operator

    def _costs_less_by_products(
        self, lifted: LiftedLoss, pieces: Sequence[Piece], point: Point, operator: Operator
    ) -> bool:
        assert self.layout is not None and self._placement is not None and isinstance(point.source, Watchable)
        colouring = coloured(operator.matrix != 0) if isinstance(operator, Dense) else None
        products = self.layout.products if colouring is None else colouring.count
        own = pieces if self.layout.sparsity is not None else lifted.without_sums(pieces)
        return products_cost_less(lifted, own, self._placement, products, point.source.entries)

    def _watched(self, point: Point, coordinates: Coordinates) -> LiftedLoss:
        source = point.source
        if not isinstance(point, TracedPoint) or not isinstance(source, Watchable):
            raise LiftFailed("the loss is an integral")
        leaves = {name: point.leaves[name] for name in coordinates.names}
        evaluate = partial(source.evaluate, point, coordinates.names)
        lifted = LiftedLoss(leaves, evaluate, self._cache, self._event_dims)
        if not abs(lifted.loss - point.value) <= _tolerance(point) * point.size:
            raise LiftFailed("the loss is another when it is watched")
        return lifted

    def _probed(self, point: Point, coordinates: Coordinates) -> Operator | MatrixFree:
        """By products, each time with the proof: one product more, where a surprise would not show otherwise."""
        given = candidates(coordinates, point.sites, self._choice.structure)
        if self.layout is None:
            self.layout = self._choice.claimed(given)
        kept = self.layout
        tried = [kept] if kept is not None else self._choice.hypotheses(given, coordinates)
        for layout in tried:
            operator = self._by_products(layout, point, coordinates)
            if operator is not None:
                return operator
            self._choice.give_up(layout)
        if kept is not None:
            return self._probed(point, coordinates)
        return self._matrix_free(point, coordinates)

    def _by_products(self, layout: Layout, point: Point, coordinates: Coordinates) -> Operator | None:
        """The Hessian in a layout, or on the pattern of its colouring; None where that is refuted."""
        products = partial(product, point, coordinates)
        like = point.params[coordinates.names[0]]
        if not layout.rows and (len(coordinates.names) >= FEWEST or layout.size > FEW_UNKNOWNS):
            if self.colouring is None and not self._is_full:
                self._colour(layout, point, coordinates)
            if self.colouring is not None:
                self.layout = self._on_pattern(layout)
                operator = probed_by_colours(self.layout, products, like, self.colouring).operator()
                self.products = self.colouring.count
                if agrees(operator, point, coordinates):
                    return operator
        self.layout = layout = layout.without_pattern()
        parts = probed(layout, products, like)
        operator = parts.operator()
        self.products = layout.products
        if self.colouring is not None:  # what was zero where it was looked for is not so here
            self.colouring = coloured(self.colouring.pattern | (parts.corner != 0))
            self._is_full = self.colouring is None
        if layout.rows and not agrees(operator, point, coordinates):
            self.layout = None
            return None
        return operator

    def _on_pattern(self, layout: Layout) -> Layout:
        """A layout without rows, on the pattern of its colouring where that costs less."""
        assert self.colouring is not None
        if layout.sparsity is self.colouring.sparsity:
            return layout
        sparse = replace(layout, sparsity=self.colouring.sparsity)
        return sparse if self._choice.structure == "sparse" or costs_less_sparse(sparse, layout) else layout

    def _colour(self, layout: Layout, point: Point, coordinates: Coordinates) -> None:
        """Find which columns of a dense Hessian share a product: beside the point, where nothing is zero by chance."""
        if not isinstance(point, TracedPoint) or point.source is None or point.random_state is not None:
            return
        self._is_full = True
        with point.source.evaluations.uncounted():
            place = coordinates.flatten(point.params)
            moved = coordinates.unflatten(place + BESIDE * probe(place))
            there = point.at({**point.params, **moved})
            if there.failure is None and isfinite(there.value):
                found = probed(layout, partial(product, there, coordinates), place)
                self.colouring = coloured(found.corner != 0)
                self._is_full = self.colouring is None

    def _matrix_free(self, point: Point, coordinates: Coordinates) -> MatrixFree:
        self.method, self.layout = Method.MATRIX_FREE, None
        like = point.params[coordinates.names[0]].new_empty(0)
        return MatrixFree(partial(product, point, coordinates), coordinates.size, like)


def _is_small(point: Point, coordinates: Coordinates) -> bool:
    """Whether a few products cost less than to watch a trace: that takes some milliseconds, whatever the model."""
    few = coordinates.size <= FEW_UNKNOWNS
    return few and (not isinstance(point.source, Watchable) or point.source.entries <= FEW_ENTRIES)


def _check_gradient(lifted: LiftedLoss, point: Point) -> None:
    """Raises: LiftFailed where what was watched has another gradient than the point."""
    gradient = point.gradient()
    for name, found in lifted.gradient.items():
        if bool(torch.isfinite(gradient[name]).all()) and is_off(
            found, gradient[name], _tolerance(point), min(1.0, point.size)
        ):
            raise LiftFailed(f"the gradient of {name!r} is another when it is watched")


def _tolerance(point: Point) -> float:
    """How far two evaluations of one loss may differ, relative to it."""
    return 1e6 * torch.finfo(point.loss.dtype).eps
