"""Which layout the Hessian is taken in: what is claimed, what was kept, what is found, and how it is coarsened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..coordinates import Coordinates
from ..errors import OptionError, StepImpossible
from ..linear.coloured import Coloured
from ..point import Site
from .cost import costs_less_sparse, numbers_of
from .layout import Layout, Rows, arranged, candidates
from .lifting.pieces import LiftedLoss, Piece
from .pattern import found_sparsity
from .placement import Placement, finest_layout

STRUCTURES = ("auto", "diagonal", "rows", "arrowhead", "sparse", "dense", "matrix_free")

BORDER_LIMIT = 8192
"""Numbers on the border, or in a dense matrix, at most: half a GiB, and a factorisation in ten seconds."""

COLUMNS_LIMIT = 2000
"""Hessian-vector products of one Hessian at most, where nothing else shows it."""

COUPLINGS_LIMIT = 2**27
"""Numbers between the rows and the border at most: 1 GB."""

ENTRIES_LIMIT = 2**26
"""Entries of a pattern at most: half a GiB."""

FILL_LIMIT = 2**30
"""Bytes of a sparse factor at most."""

WIDE_BORDER = 64
"""Numbers on the border from which on it is looked at whether the pattern costs less."""

SPARSE = 0.25
"""Part of the numbers of a layout that a pattern may have to be looked at."""

PROBES_LIMIT = 200
"""Hessian-vector products of one Hessian at most, where the maps cannot be lifted and rows might be had instead."""

TOGETHER, ONLY_PRODUCTS = "they are taken together", "only products with the Hessian are used"


class StructureRefuted(StepImpossible):
    """The Hessian does not have the structure that the config claims."""


class LayoutChoice:
    """Which layout some parameters are taken in: what ``structure`` claims, or the finest that holds.

    With ``probes`` it is their pattern, whatever its factor would take: it has none, and is estimated by so many.
    Raises: OptionError for an unknown structure; StructureRefuted where a claimed one does not hold.
    """

    def __init__(self, structure: str, probes: int | None = None) -> None:
        if structure not in STRUCTURES:
            raise OptionError(f"structure must be one of {', '.join(STRUCTURES)}, not {structure!r}")
        self.structure, self.probes = structure, probes
        self.too_large = ""
        """What was found and is too large to be factorised, though its pattern is sparse: a phrase."""
        self._without_border = structure in ("diagonal", "rows")
        self._coarsened: dict[tuple[str, ...], str] = {}
        """Names whose rows interact → what was done about it."""
        self._joined: set[tuple[str, ...]] = set()
        """Names that are never rows again."""
        self._kept: list[list[str]] | None = None
        """Names of the rows that a state was saved with, until they are taken."""
        self._is_sparse = structure == "sparse"
        """Whether the pattern is all that is asked for: it is claimed, or a state was saved with it."""

    def claimed(self, given: list[Rows]) -> Layout | None:
        """The layout that the config claims, or, once, that a state was saved with."""
        if self._without_border:
            return arranged(given, given)
        if self.structure == "dense":
            return arranged(given, [])
        if self._kept is None:
            return None
        kept = {tuple(names) for names in self._kept}
        self._kept = None
        return arranged(given, [one for one in given if one.names in kept])

    def found(
        self, lifted: LiftedLoss, pieces: Sequence[Piece], coordinates: Coordinates, sites: Mapping[str, Site]
    ) -> Layout | None:
        """What is claimed or was kept, else what costs least of the finest that holds for these pieces and their
        pattern; None where that is too large."""
        given = candidates(coordinates, sites, self.structure)
        if self.probes is not None:
            return _by_probes(on_pattern(lifted, pieces, coordinates, given, ENTRIES_LIMIT), coordinates, self.probes)
        if self._is_sparse:
            layout = on_pattern(lifted, pieces, coordinates, given, ENTRIES_LIMIT)
            if layout is None or layout.sparsity is None or layout.sparsity.memory > FILL_LIMIT:
                raise StepImpossible(_too_much(coordinates, layout))
            return layout
        layout = self.claimed(given)
        if layout is not None:
            return layout
        if lifted.sums and self.structure == "auto":  # one that all have part in: nothing is a row
            sparse = on_pattern(lifted, pieces, coordinates, given, ENTRIES_LIMIT)
            if sparse is not None and costs_less_sparse(sparse, arranged(given, [])):
                return sparse
        pieces = lifted.without_sums(pieces)
        layout, broken = finest_layout(lifted, pieces, coordinates, given)
        if self.structure == "arrowhead" and not layout.rows:
            raise self._refuted([name for one in broken for name in one.names] or coordinates.names)
        layout = arranged(given, [one for one in layout.rows if one.names not in self._joined])
        if self.structure == "auto" and len(layout.border) >= WIDE_BORDER:
            sparse = on_pattern(
                lifted, pieces, coordinates, given, min(ENTRIES_LIMIT, int(SPARSE * numbers_of(layout)))
            )
            if sparse is not None and costs_less_sparse(sparse, layout):
                layout = sparse
        for one in broken:
            if any(sites[name].plates for name in one.names):
                self._coarsened[one.names] = ONLY_PRODUCTS if _too_large(layout) else TOGETHER
        if not _too_large(layout):
            return layout
        sparse = (
            layout if layout.sparsity is not None else on_pattern(lifted, pieces, coordinates, given, ENTRIES_LIMIT)
        )
        if sparse is not None and not sparse.sums:
            self.too_large = _described(layout)
        return None

    def hypotheses(self, given: list[Rows], coordinates: Coordinates) -> list[Layout]:
        """What may hold, the cheapest first; what has been refuted is left out."""
        size, found = coordinates.size, []
        many = [one for one in given if one.count > 1 and one.names not in self._coarsened]
        for chosen in [many, many[:1]] if len(many) > 1 else [many] if many else []:
            layout = arranged(given, chosen)
            cheap = layout.products < min(size, PROBES_LIMIT + 1) and not _too_large(layout)
            if self.structure == "arrowhead" or cheap:
                found.append(layout)
        if self.structure == "arrowhead":
            if not found:
                raise self._refuted(coordinates.names)
            return found
        return [*found, arranged(given, [])] if size <= COLUMNS_LIMIT else found

    def give_up(self, layout: Layout) -> None:
        """Hear that a product refutes a layout. Raises: StructureRefuted if nothing else may be tried."""
        names = [name for one in layout.rows for name in one.names]
        self.check_border(names)
        if len(layout.rows) > 1:
            return  # Which of the groups interact is not known: the largest, tried alone, may still hold.
        if self.structure == "arrowhead":
            raise self._refuted(names)
        for one in layout.rows:
            self._coarsened[one.names] = TOGETHER if layout.size <= COLUMNS_LIMIT else ONLY_PRODUCTS

    def check_border(self, names: Sequence[str]) -> None:
        """Hear that rows of ``names`` interact. Raises: StructureRefuted if no border may take them."""
        if self._without_border:
            raise self._refuted(names)

    def take_together(self, layout: Layout, names: Sequence[str]) -> None:
        """Never again have rows that hold some of ``names``."""
        for one in layout.rows:
            if any(name in names for name in one.names):
                self._joined.add(one.names)
                self._coarsened[one.names] = TOGETHER

    def remarks(self) -> list[str]:
        return [f"rows of {', '.join(names)} interact: {what}" for names, what in sorted(self._coarsened.items())]

    def coarsened(self) -> list[list[Any]]:
        """For a state: whose rows interact, and what was done about it."""
        return [[list(names), what] for names, what in sorted(self._coarsened.items())]

    def go_on(self, coarsened: Sequence[Any], rows: list[list[str]] | None, is_sparse: bool) -> None:
        """From a state: what was coarsened, and the names of each group of the layout that was taken, or that it was a
        pattern."""
        self._coarsened, self._kept = {tuple(names): what for names, what in coarsened}, rows
        self._is_sparse = self._is_sparse or is_sparse

    def _refuted(self, names: Sequence[str]) -> StructureRefuted:
        listed = ", ".join(dict.fromkeys(names))
        return StructureRefuted(
            f"rows of {listed} interact: the Hessian is not `structure: {self.structure}`; "
            "take `auto`, which finds the finest structure that holds"
        )


def on_pattern(
    lifted: LiftedLoss, pieces: Sequence[Piece], coordinates: Coordinates, given: list[Rows], most: int
) -> Layout | None:
    """All together, by the pattern of their Hessian; None where that has more entries than ``most``."""
    layout = arranged(given, [])
    placement = Placement(layout, lifted, coordinates, keeps_sums=True)
    sparsity = found_sparsity(placement, pieces, most)
    return None if sparsity is None else replace(layout, sparsity=sparsity, sums=placement.beside)


def _by_probes(layout: Layout | None, coordinates: Coordinates, probes: int) -> Layout:
    """Raises: StepImpossible where there is no pattern, or sums stand beside it."""
    names = ", ".join(coordinates.names)
    if layout is None or layout.sparsity is None:
        raise StepImpossible(
            f"the Hessian of {names} has more than {ENTRIES_LIMIT} entries: `logdet: stochastic` takes sparse ones only"
        )
    if layout.sums:
        raise StepImpossible(
            f"the Hessian of {names} has {layout.sums} sum{'s' if layout.sums > 1 else ''} of many numbers beside its "
            "pattern: `logdet: stochastic` knows no such, take `logdet: exact`"
        )
    return replace(layout, sparsity=Coloured(layout.sparsity, probes))


def _too_much(coordinates: Coordinates, layout: Layout | None) -> str:
    names = ", ".join(coordinates.names)
    if layout is None or layout.sparsity is None:
        return f"the Hessian of {names} has more than {ENTRIES_LIMIT} entries: it is not `structure: sparse`"
    size = layout.sparsity.memory / 2**30
    return f"a factor of the Hessian of {names} takes {size:.3g} GiB, and {FILL_LIMIT / 2**30:.3g} are the most"


def _described(layout: Layout) -> str:
    if layout.sparsity is not None:
        size = layout.sparsity.memory / 2**30
        return f"is sparse, but a factor of it takes {size:.3g} GiB, and {FILL_LIMIT / 2**30:.3g} are the most"
    m, rows = len(layout.border), ", ".join(name for one in layout.rows for name in one.names)
    beside = f"has rows of {rows}, but beside them" if rows else "is sparse, but"
    return f"{beside} {m} numbers ({', '.join(layout.border_names)}) would be dense, and {BORDER_LIMIT} are the most"


def _too_large(layout: Layout) -> bool:
    """Whether products with the Hessian are cheaper than a factorisation of such a layout."""
    if layout.sparsity is not None:
        return layout.sparsity.memory > FILL_LIMIT
    m = len(layout.border)
    return m > BORDER_LIMIT or m * layout.size > COUPLINGS_LIMIT
