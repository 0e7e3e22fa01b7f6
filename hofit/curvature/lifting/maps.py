"""Linear maps from nodes to nodes, by index or by matrix, and what is done to them.

A *node* is a leaf in the place of something that the loss reads its parameters through; a map says what it is of
earlier ones: z = Σ c · source[index] + constant. Index maps do not change while the data do not: what is derived from
them is kept from one trace to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...internals import version


class LiftFailed(BaseException):
    """The model computes in a way that cannot be followed; the reason in a few words.

    No Exception: it is raised inside the model, whose own handlers must not take it for theirs.
    """


@dataclass(frozen=True, eq=False)
class Entry:
    """z gets factor · coefficient · source.flat[index], entry by entry.

    Shapes: index and coefficient that of z; both may be expanded views, and a stride of 0 says: constant there.
    """

    source: int
    index: Tensor
    coefficient: Tensor | None = None
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Matrix:
    """z gets matrix @ source.flat[places]. Shapes: places (K,); matrix (*z.shape, K)."""

    source: int
    places: Tensor
    matrix: Tensor
    factor: float = 1.0


Term = Entry | Matrix


@dataclass(eq=False)
class Affine:
    """What is known of a tensor that is linear in nodes, up to a constant. ``node`` is set where it *is* a node."""

    shape: torch.Size
    terms: list[Term]
    node: int | None = None


@dataclass(eq=False)
class Node:
    """A leaf of the computation: a parameter (``name``), an affine map of earlier nodes (``terms``), or any function of
    earlier nodes (``definition``, which autograd differentiates)."""

    leaf: Tensor
    name: str | None = None
    terms: list[Term] = field(default_factory=list)
    definition: Tensor | None = None


class IndexCache:
    """What is derived from index maps, from one trace to the next: the same question is answered by the same object.

    Maps do not change while the data do not; tensors are told apart by identity and version, and kept alive.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
        self._used: set[Any] = set()
        self._identities: dict[torch.Size, Tensor] = {}

    def identity(self, shape: torch.Size, device: torch.device) -> Tensor:
        if shape not in self._identities:
            self._identities[shape] = torch.arange(prod(shape), device=device).view(shape)
        return self._identities[shape]

    def of(self, label: str, arguments: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """``compute()``, remembered by the label and the arguments."""
        key = (label, _fingerprint(arguments))
        self._used.add(key)
        if key not in self._kept:
            self._kept[key] = (compute(), arguments)
        return self._kept[key][0]

    def moved(self, move: Callable[..., Tensor], index: Tensor, label: str, arguments: tuple[Any, ...]) -> Tensor:
        """``move(index)``, remembered by what the move is and which tensors it takes."""
        moved: Tensor = self.of(label, (index, *arguments), lambda: move(index))
        return moved

    def begin(self) -> None:
        """Forget what was not asked for since the last call: an index that is built anew at every trace."""
        self._kept = {key: value for key, value in self._kept.items() if key in self._used}
        self._used = set()


def is_identity(cache: IndexCache, index: Tensor) -> bool:
    """Whether an index map is 0, 1, 2, …"""
    if index is cache.identity(index.shape, index.device):
        return True
    flat = cache.identity(torch.Size((index.numel(),)), index.device)
    return bool(cache.of("identity", (index,), lambda: bool((index.reshape(-1) == flat).all())))


def broadcast_shape(*shapes: torch.Size) -> torch.Size:
    """What the shapes broadcast to; torch's own function imports a second's worth of modules at its first call."""
    sizes = [1] * max((len(shape) for shape in shapes), default=0)
    for shape in shapes:
        for d, size in enumerate(reversed(shape), start=1):
            if sizes[-d] == 1:
                sizes[-d] = size
            elif size not in (1, sizes[-d]):
                raise RuntimeError(f"shapes {', '.join(map(str, map(tuple, shapes)))} do not broadcast")
    return torch.Size(sizes)


def _fingerprint(value: Any) -> Any:
    """What tells one argument of a move from another; tensors by identity and version."""
    if isinstance(value, Tensor):
        return ("tensor", id(value), version(value))
    if isinstance(value, (list, tuple)):
        return tuple(_fingerprint(one) for one in value)
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, slice):
        return ("slice", _fingerprint(value.start), _fingerprint(value.stop), _fingerprint(value.step))
    return repr(value)


def reshaped(cache: IndexCache, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The flat places of a tensor's entries, in another shape."""
    whole = cache.identity(tensor.shape, tensor.device)
    if tensor.shape == shape:
        return whole
    return cache.moved(lambda t: t.reshape(shape), whole, "as", (tuple(shape),))


def composed(cache: IndexCache, outer: Term, inner: Term) -> Term:
    """outer ∘ inner: what an entry of the later node gets from the parameters through the earlier one."""
    factor = outer.factor * inner.factor
    if isinstance(outer, Entry) and isinstance(inner, Entry):
        whole = cache.identity(inner.index.shape, inner.index.device)
        index, coefficient = outer.index, outer.coefficient
        if inner.index is not whole:
            index = cache.moved(lambda t: inner.index.reshape(-1)[t], outer.index, "through", (inner.index,))
        if inner.coefficient is not None:
            taken = inner.coefficient
            if outer.index is not whole:
                taken = inner.coefficient.reshape(-1)[outer.index]
            coefficient = taken if coefficient is None else taken * coefficient
        return Entry(inner.source, index, coefficient, factor)
    if isinstance(outer, Entry):
        assert isinstance(inner, Matrix)
        rows = inner.matrix.reshape(-1, len(inner.places))[outer.index]
        if outer.coefficient is not None:
            rows = rows * outer.coefficient[..., None]
        return Matrix(inner.source, inner.places, rows, factor)
    if isinstance(inner, Entry):
        places = cache.moved(lambda t: inner.index.reshape(-1)[t], outer.places, "through", (inner.index,))
        matrix = outer.matrix
        if inner.coefficient is not None:
            matrix = matrix * inner.coefficient.reshape(-1)[outer.places]
        return Matrix(inner.source, places, matrix, factor)
    flat = inner.matrix.reshape(-1, len(inner.places))
    return Matrix(inner.source, inner.places, outer.matrix @ flat[outer.places], factor)


def restricted(cache: IndexCache, term: Term, places: Tensor) -> Term:
    """The term at some places of its node."""
    if isinstance(term, Matrix):
        flat = term.matrix.reshape(-1, len(term.places))
        if places is cache.identity(places.shape, places.device):
            return Matrix(term.source, term.places, flat, term.factor)
        return Matrix(term.source, term.places, flat[places.reshape(-1)], term.factor)
    if places is cache.identity(term.index.shape, places.device):
        return term
    index = cache.moved(lambda t: taken(t, places), term.index, "at", (places,))
    coefficient = None if term.coefficient is None else taken(term.coefficient, places)
    return Entry(term.source, index, coefficient, term.factor)


def add_transposed(cache: IndexCache, target: Tensor, term: Term, adjoint: Tensor) -> Tensor:
    """target + termᵀ adjoint. Shape of target: (n,), that of the term's source, flat."""
    if isinstance(term, Matrix):
        flat = term.matrix.reshape(-1, len(term.places))
        return target.index_add(0, term.places, term.factor * (adjoint.reshape(-1) @ flat))
    value = adjoint if term.coefficient is None else adjoint * term.coefficient
    index, value = summed(cache, term.index, value)
    return accumulated(cache, target, index, value * term.factor)


def summed(cache: IndexCache, index: Tensor, value: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Sum ``value`` over the dimensions along which no index changes; (index, *others, value) without them."""
    indices = (index, *others)
    dims = [d for d in range(index.dim()) if all(i.stride(d) == 0 for i in indices) and index.shape[d] > 1]
    if not dims:
        return (*indices, value)
    narrowed = [
        cache.moved(lambda t: t[tuple(0 if d in dims else slice(None) for d in range(t.dim()))], i, "narrow", (dims,))
        for i in indices
    ]
    return (*narrowed, value.sum(dims))


def accumulated(cache: IndexCache, target: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """target + Σ value at index; shape of target (n,)."""
    if value.numel() == len(target) and is_identity(cache, index):
        return target + value.reshape(-1)
    if value.numel() == 1:
        return target.index_add(0, index.reshape(-1), value.reshape(-1))
    return target.index_add(0, index.reshape(-1), value.expand(index.shape).reshape(-1))


def taken(values: Tensor, index: Tensor) -> Tensor:
    """values.flat[index], an expanded view where the index is one."""
    dims = [d for d in range(index.dim()) if index.stride(d) == 0 and index.shape[d] > 1]
    if not dims:
        return values.reshape(-1)[index]
    narrow = index[tuple(slice(0, 1) if d in dims else slice(None) for d in range(index.dim()))]
    return values.reshape(-1)[narrow].expand(index.shape)
