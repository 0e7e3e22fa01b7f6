"""Which structure the Hessian of some parameters has: found, proved by a random probe, and coarsened where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch

from ..coordinates import Coordinates
from ..errors import OptionError, StepImpossible
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..point import Point, TracedPoint, Watchable
from .assembly import Interaction, Maps, assemble, find_layout
from .layout import Candidate, Layout, arranged, candidates
from .lifting.maps import IndexCache, LiftFailed
from .lifting.pieces import LiftedLoss, Piece
from .probed import probed, product
from .proof import probe, refutes

STRUCTURES = ("auto", "diagonal", "rows", "arrowhead", "dense", "matrix_free")

BORDER_LIMIT = 2000
"""Numbers on the border, or in a dense matrix, at most: 32 MB, and a factorisation in a tenth of a second."""

COUPLINGS_LIMIT = 2**27
"""Numbers between the rows and the border at most: 1 GB."""

TOGETHER, ONLY_PRODUCTS = "they are taken together", "only products with the Hessian are used"

PROBES_LIMIT = 200
"""Hessian-vector products of one Hessian at most, where the maps cannot be lifted and rows might be had instead."""

FEW_UNKNOWNS, FEW_ENTRIES = 64, 20_000
"""Up to so many unknowns, and terms of the loss, products are taken and nothing is lifted."""


class StructureRefuted(StepImpossible):
    """The Hessian does not have the structure that the config claims."""


class Curvature:
    """The Hessian over some parameters, at point after point.

    ``auto`` takes the finest structure that holds: rows of the plates that do not interact (diagonal where they have
    one number), with whatever they all touch as a border (arrowhead), dense, or Hessian-vector products alone where
    the border is too large. Linear maps of the model are lifted (see ``lift``); where the model cannot be followed,
    products with probes take their place. Either way a random product proves the result at the first point, and again
    after every surprise.

    Raises: OptionError for an unknown structure; StructureRefuted from ``at`` where a claimed one does not hold.
    """

    def __init__(self, structure: str = "auto") -> None:
        if structure not in STRUCTURES:
            raise OptionError(f"structure must be one of {', '.join(STRUCTURES)}, not {structure!r}")
        self.structure = structure
        self.lifts = structure != "matrix_free"
        self.why_not_lifted = ""
        self.layout: Layout | None = None
        self.products = 0
        """Hessian-vector products of the last Hessian."""
        self._free = structure == "matrix_free"
        self._cache = IndexCache()
        self._events: dict[tuple[int, ...], int] = {}
        self._signature: str | None = None
        self._names: list[str] = []
        self._maps: Maps | None = None
        self._proved = False
        self._coarsened: dict[tuple[str, ...], str] = {}
        self._kept_rows: list[list[str]] | None = None
        self._joined: set[tuple[str, ...]] = set()

    @property
    def needs_products(self) -> bool:
        """Whether a Hessian takes Hessian-vector products: points must keep the gradient's graph."""
        return not self.lifts

    def look(self, point: Point, names: Sequence[str]) -> None:
        """Settle what ``needs_products`` says before a gradient is taken at ``point``: its graph may be wanted."""
        if self.lifts and self.layout is None and is_small(point, names):
            self.lifts, self.why_not_lifted = False, "the model is small"

    def at(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        """The Hessian over ``names``, flat in their order. Raises: StructureRefuted."""
        if self._names != list(names):
            self._forget()
            self._names = list(names)
        if self._free:
            return self._matrix_free(point, names)
        self.look(point, names)
        if self.lifts and point.source is not None:
            try:
                return self._lifted(point, names)
            except LiftFailed as failure:
                self._forget()
                self.why_not_lifted = str(failure)
        self.lifts = False
        return self._probed(point, names)

    def take_together(self, names: Sequence[str]) -> None:
        """Say that rows of ``names`` interact, though not at the last point: the next Hessian has another layout."""
        assert self.layout is not None
        for one in self.layout.rows:
            if any(name in names for name in one.names):
                self._joined.add(one.names)
                self._coarsened[one.names] = TOGETHER
        self.layout, self._maps, self._proved = None, None, False

    def remarks(self) -> list[str]:
        return [f"rows of {', '.join(names)} interact: {what}" for names, what in sorted(self._coarsened.items())]

    def describe(self, operator: Operator | MatrixFree) -> str:
        """What was found, and what a Hessian like ``operator`` takes: a phrase."""
        how = (
            "maps lifted" if self.lifts else f"by products{f' ({self.why_not_lifted})' if self.why_not_lifted else ''}"
        )
        products = (
            "Hessian-vector products as needed"
            if self.layout is None
            else (f"{self.products} Hessian-vector products an iteration")
        )
        return f"{self._what()}; {how}; {products}, {operator.memory() / 2**20:.3g} MiB"

    def _what(self) -> str:
        if self.layout is None:
            return "matrix_free"
        groups = [
            f"{one.index.shape[0]} rows of {one.index.shape[1]} ({', '.join(one.names)})" for one in self.layout.rows
        ]
        m = len(self.layout.border)
        if not groups:
            return f"dense ({m})"
        if m:
            return f"arrowhead: {'; '.join(groups)}; border of {m} ({', '.join(self.layout.border_names)})"
        kind = "diagonal" if all(one.index.shape[1] == 1 for one in self.layout.rows) else "rows"
        return f"{kind}: {'; '.join(groups)}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "lifts": self.lifts,
            "free": self._free,
            "names": list(self._names),
            "rows": None if self.layout is None else [list(one.names) for one in self.layout.rows],
            "coarsened": [[list(names), what] for names, what in sorted(self._coarsened.items())],
            "signature": self._signature,
            "events": [[list(nodes), events] for nodes, events in sorted(self._events.items())],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the same layout is taken, and proved again."""
        self._forget()
        self.lifts, self._free, self._names = bool(state["lifts"]), bool(state["free"]), list(state["names"])
        self._coarsened = {tuple(names): what for names, what in state["coarsened"]}
        self._kept_rows = state["rows"]
        self._signature = state["signature"]
        self._events.update({tuple(nodes): events for nodes, events in state["events"]})

    def _forget(self) -> None:
        """What was found; the next Hessian begins anew."""
        self.layout, self._maps, self._signature, self._proved = None, None, None, False
        self._events.clear()

    # lifted ------------------------------------------------------------------------------------------------------

    def _lifted(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        lifted = self._traced(point, names)
        if lifted.signature != self._signature:
            self._forget()
            self._signature = lifted.signature
        pieces = lifted.take_apart(prove=not self._proved)
        if not self._proved:
            self._check_gradient(lifted, point)
        if self.layout is None:
            self._choose(lifted, pieces, point, names)
        if self._free:
            return self._matrix_free(point, names)
        try:
            operator = assemble(lifted, pieces, self._maps_of(lifted, point, names))
        except Interaction as surprise:
            if self.structure in ("diagonal", "rows"):
                raise self._refuted(surprise.names) from surprise
            self._proved = False
            self._choose(lifted, pieces, point, names)
            if self._free:
                return self._matrix_free(point, names)
            operator = assemble(lifted, pieces, self._maps_of(lifted, point, names))
        self.products = 0
        # 0 · ∞ in a map may be nan where autograd has a number; where that is not finite either nothing is proved.
        finite = isfinite(operator.matvec(operator.like.new_ones(operator.size)).sum())
        if not (self._proved and finite):
            if not self._agrees(operator, point, names):
                raise LiftFailed("a random Hessian-vector product refutes what was lifted")
            self._proved = finite
        return operator

    def _traced(self, point: Point, names: Sequence[str]) -> LiftedLoss:
        source = point.source
        if not isinstance(point, TracedPoint) or not isinstance(source, Watchable):
            raise LiftFailed("the loss is an integral")
        leaves = {name: point.leaves[name] for name in names}
        lifted = LiftedLoss(leaves, partial(source.evaluate, point, names), self._cache, self._events)
        if not abs(lifted.loss - point.value) <= _tolerance(point) * max(1.0, abs(point.value)):
            raise LiftFailed("the loss is another when it is watched")
        return lifted

    def _check_gradient(self, lifted: LiftedLoss, point: Point) -> None:
        gradient = point.gradient()
        for name, found in lifted.gradient.items():
            expected = gradient[name]
            if not expected.numel() or not bool(torch.isfinite(expected).all()):
                continue
            scale = max(1.0, float(expected.abs().max()))
            if not float((found - expected).abs().max()) <= _tolerance(point) * scale:
                raise LiftFailed(f"the gradient of {name!r} is another when it is watched")

    def _choose(self, lifted: LiftedLoss, pieces: Sequence[Piece], point: Point, names: Sequence[str]) -> None:
        """The layout: what is claimed or was kept, else the finest that holds for these pieces."""
        size = sum(point.params[name].numel() for name in names)
        given = candidates(point.params, names, point.sites, self.structure)
        self._maps = None
        self.layout = self._claimed(given, size)
        if self.layout is not None:
            return
        self.layout, broken = find_layout(lifted, pieces, point.params, names, given)
        if self.structure == "arrowhead" and not self.layout.rows:
            raise self._refuted([name for one in broken for name in one.names] or list(names))
        if self._joined:
            apart = [one for one in self.layout.rows if one.names not in self._joined]
            kept = {one.names for one in apart}
            self.layout = arranged(size, apart, [one for one in given if one.names not in kept])
        self._free = too_large(self.layout)
        for one in broken:
            if any(point.sites[name].plates for name in one.names):
                self._coarsened[one.names] = ONLY_PRODUCTS if self._free else TOGETHER

    def _claimed(self, given: list[Candidate], size: int) -> Layout | None:
        """The layout that the config claims, or that a state was saved with."""
        if self.structure in ("diagonal", "rows"):
            return arranged(size, given, [])
        if self.structure == "dense":
            return arranged(size, [], given)
        if self._kept_rows is None:
            return None
        kept = {tuple(names) for names in self._kept_rows}
        self._kept_rows = None
        chosen = [one for one in given if one.names in kept]
        return arranged(size, chosen, [one for one in given if one.names not in kept])

    def _maps_of(self, lifted: LiftedLoss, point: Point, names: Sequence[str]) -> Maps:
        assert self.layout is not None
        if self._maps is None:
            self._maps = Maps(self.layout, lifted, point.params, names)
        return self._maps

    # by products -------------------------------------------------------------------------------------------------

    def _probed(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        """By products, each time with the proof: one product more, where a surprise would not show otherwise."""
        size = sum(point.params[name].numel() for name in names)
        given = candidates(point.params, names, point.sites, self.structure)
        if self.layout is None:
            self.layout = self._claimed(given, size)
        for layout in [self.layout] if self.layout is not None else self._hypotheses(given, size):
            operator = probed(point, names, layout)
            self.products = len(layout.border) + max((one.index.shape[1] for one in layout.rows), default=0)
            if not layout.rows or self._agrees(operator, point, names):
                self.layout = layout
                return operator
            if self.structure in ("diagonal", "rows"):
                raise self._refuted([name for one in layout.rows for name in one.names])
            if len(layout.rows) > 1:
                continue  # which of them interact is not known: the largest may still be rows
            if self.structure == "arrowhead":
                raise self._refuted([name for one in layout.rows for name in one.names])
            for one in layout.rows:
                self._coarsened[one.names] = TOGETHER if size <= BORDER_LIMIT else ONLY_PRODUCTS
        if self.layout is not None:
            self.layout = None
            return self._probed(point, names)
        self._free = True
        return self._matrix_free(point, names)

    def _hypotheses(self, given: list[Candidate], size: int) -> list[Layout]:
        """What may hold, the cheapest first; what has been refuted is left out."""
        found = []
        many = [one for one in given if len(one.index) > 1 and one.names not in self._coarsened]
        for chosen in [many, many[:1]] if len(many) > 1 else [many[:1]] if many else []:
            layout = arranged(size, chosen, [other for other in given if all(other is not one for one in chosen)])
            cost = len(layout.border) + max(one.index.shape[1] for one in chosen)
            if self.structure == "arrowhead" or (cost < min(size, PROBES_LIMIT + 1) and not too_large(layout)):
                found.append(layout)
        if self.structure == "arrowhead":
            if not found:
                raise self._refuted(list(self._names))
            return found
        return [*found, arranged(size, [], given)] if size <= BORDER_LIMIT else found

    def _matrix_free(self, point: Point, names: Sequence[str]) -> MatrixFree:
        self.lifts, self.layout = False, None
        size = sum(point.params[name].numel() for name in names)
        return MatrixFree(lambda vectors: product(point, names, vectors), size, point.params[names[0]].new_empty(0))

    def _agrees(self, operator: Operator, point: Point, names: Sequence[str]) -> bool:
        """Whether a random Hessian-vector product is the operator's own, parameter by parameter."""
        coordinates = Coordinates.of(point.params, names)
        vector = probe(coordinates.flatten(point.params))
        true, claimed = product(point, names, vector[None])[0], operator.matvec(vector)
        if not bool(torch.isfinite(true).all()):
            return True  # nothing can be said here; the step that comes of it is judged
        return not any(refutes(claimed[own], true[own]) for own in coordinates.slices.values())

    def _refuted(self, names: Sequence[str]) -> StructureRefuted:
        listed = ", ".join(dict.fromkeys(names))
        return StructureRefuted(
            f"rows of {listed} interact: the Hessian is not `structure: {self.structure}`; "
            "take `auto`, which finds the finest structure that holds"
        )


def is_small(point: Point, names: Sequence[str]) -> bool:
    """Whether a few products cost less than to watch a trace: that takes some milliseconds, whatever the model."""
    size = sum(point.params[name].numel() for name in names)
    return size <= FEW_UNKNOWNS and (not isinstance(point.source, Watchable) or point.source.entries <= FEW_ENTRIES)


def too_large(layout: Layout) -> bool:
    """Whether products with the Hessian are cheaper than a factorisation of such a layout."""
    m = len(layout.border)
    return m > BORDER_LIMIT or m * layout.size > COUPLINGS_LIMIT


def _tolerance(point: Point) -> float:
    """How far two evaluations of one loss may differ, relative to it."""
    return 1e6 * torch.finfo(point.loss.dtype).eps
