"""Discrete latents summed out exactly: Pyro's parallel enumeration, and variable elimination over what it gives.

Every enumerated site takes all its values at once, along a tensor dimension of its own to the left of the plates
(Pyro's `EnumMessenger`, which recycles the dimensions inside `pyro.markov`). The factors that depend on them are
contracted by Pyro's message passing over plates, in a ring of our own: Pyro's sums exponentials of separately shifted
factors and clamps the derivative of the logarithm at 1/eps, which makes gradients wrong where one factor favours what
another all but rules out, and second derivatives zero there.

As in Pyro's `TraceEnum_ELBO`, a mask takes away what is said of other sites given the discrete one and never the prior
of the discrete one itself (a masked row sums to one), and a scale weighs the logarithm of the sum.

Source: Obermeyer et al. (2019), "Tensor variable elimination for plated factor graphs"; Koller & Friedman (2009),
section 9.4.3, for the order of elimination (least weight).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heapify, heappop, heappush
from math import inf, prod
from typing import Any

import torch
from opt_einsum import get_symbol
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from ..errors import ModelError
from ..internals import DIM_TO_ID, ENUMERATE_DIM, MARKOV_SCOPE, DispatchMode, packed_dims, pytree, with_packed_dims

MEMORY_LIMIT = 4 * 2**30
"""Bytes of one tensor at most: a gradient keeps several of that size."""

DIMENSIONS_LIMIT = 60
"""Dimensions of plates and discrete latents at most: torch has 64, and an event and an index take a few."""


BROADCAST = (
    "the model must broadcast over dimensions on the left: index with [z] or Vindex, count dimensions from the right, "
    "and take no .item(), .max() or .sum() over a plate of a discrete latent"
)


class EnumerationError(ModelError):
    """Why the discrete latent ``site`` cannot be summed out."""

    def __init__(self, site: str, message: str) -> None:
        self.site = site
        super().__init__(message)


@dataclass(frozen=True)
class Discrete:
    """A discrete latent as the first trace shows it."""

    distribution: str
    has_finite_support: bool
    in_markov: bool


def is_discrete(fn: Any) -> bool:
    return bool(getattr(fn, "has_enumerate_support", False) or getattr(fn.support, "is_discrete", False))


def no_leaf(name: str, distribution: str) -> str:
    """Why a discrete latent that nothing integrates out cannot be fitted."""
    return (
        f"the latent {name!r} is discrete ({distribution}): it cannot be optimised. Sum it out "
        f'(`objective.integrate: {{"{name}": enumerate}}`), observe it (obs=), or give it a continuous relaxation'
    )


def discrete(msg: Any) -> Discrete:
    fn = msg["fn"]
    finite = bool(getattr(fn, "has_enumerate_support", False))
    return Discrete(type(fn).__name__, finite, MARKOV_SCOPE in msg["infer"])


@dataclass(frozen=True)
class Enumeration:
    """Which sites are summed out, and what else the first trace, with one value of each, has shown.

    ``nesting`` counts the batch dimensions that plates and sites take; those of the enumerated values lie left of it.
    """

    sites: Mapping[str, Discrete]
    nesting: int
    batch_shapes: Mapping[str, torch.Size]

    def messenger(self) -> EnumMessenger:
        return EnumMessenger(first_available_dim=-1 - self.nesting)

    def mark(self, msg: Any) -> None:
        """Have Pyro enumerate this site if it is one of ours; whatever the model itself has marked."""
        own = {key: value for key, value in msg["infer"].items() if key not in ("enumerate", "num_samples", "tmc")}
        msg["infer"] = {**own, "enumerate": "parallel"} if msg["name"] in self.sites else own

    def concerns(self, message: Any, log_prob: Tensor) -> bool:
        """Whether a site is enumerated or depends on one that is."""
        left = log_prob.shape[: max(0, log_prob.dim() - self.nesting)]
        return message["name"] in self.sites or prod(left) > 1

    def of_plates(self, name: str, batch_shape: torch.Size) -> torch.Size:
        """A latent's batch shape without the dimensions of enumerated values that its distribution depends on."""
        rank = len(self.batch_shapes.get(name, batch_shape))
        return batch_shape[len(batch_shape) - rank :] if len(batch_shape) > self.nesting else batch_shape

    def check_dimensions(self) -> None:
        own = [name for name, site in self.sites.items() if not site.in_markov]
        if len(own) + self.nesting > DIMENSIONS_LIMIT:
            raise EnumerationError(
                own[0],
                f"{len(own)} discrete latents ({own[0]!r}, …, {own[-1]!r}) take a tensor dimension each, and torch has "
                "64: loop over them with `for t in pyro.markov(range(n))`, or put them into a plate",
            )

    def check_shape(self, message: Any) -> None:
        """Right of the enumerated dimensions nothing may differ from the first trace but the plates."""
        name = message["name"]
        before = self.batch_shapes.get(name, torch.Size())
        now = getattr(message["fn"], "batch_shape", before)
        of_plates = [frame.dim for frame in message["cond_indep_stack"]]
        for dim in range(-self.nesting, 0):
            sizes = [shape[dim] if len(shape) >= -dim else 1 for shape in (before, now)]
            if dim in of_plates:
                continue
            if name in self.sites and sizes[1] > 1:
                raise EnumerationError(
                    name,
                    f"the discrete {name!r} has batch shape {tuple(before)}, and dimension {dim} is no plate: put it "
                    "into `with pyro.plate(...)`, so that its rows are summed one by one",
                )
            if sizes[0] != sizes[1]:
                raise EnumerationError(
                    next(iter(self.sites)),
                    f"{name!r} has batch shape {tuple(now)} with all values of the discrete latents, and "
                    f"{tuple(before)} with one: {BROADCAST}",
                )

    def check_values(self, single: Sequence[tuple[Any, Tensor]], every: Sequence[tuple[Any, Tensor]]) -> None:
        """Whether sites have the same log density at one value of each discrete latent as among all values.

        Takes the messages, with their unscaled log densities, of a trace with single values and of one with all.
        Raises: EnumerationError for a site that has not: what the model makes of a value depends on the others.
        """
        chosen = {message["name"]: message["value"] for message, _ in single}
        expected = {message["name"]: log_prob for message, log_prob in single}
        places: dict[int, Tensor] = {}  # id of an enumerated dimension → the single value's place along it
        for message, log_prob in every:
            name, infer = message["name"], message["infer"]
            if name in self.sites:
                dim, event_dim = infer[ENUMERATE_DIM], message["fn"].event_dim
                same = message["value"] == chosen[name]
                same = same.flatten(-event_dim).all(-1) if event_dim else same
                places[infer[DIM_TO_ID][dim]] = same.to(torch.uint8).argmax(dim, keepdim=True)
            found = log_prob
            for dim, id_ in infer.get(DIM_TO_ID, {}).items():
                if found.dim() >= -dim and found.shape[dim] > 1:
                    place = places[id_]
                    rank = max(found.dim(), place.dim())
                    whole, place = (t.reshape((1,) * (rank - t.dim()) + t.shape) for t in (found, place))
                    found = whole.take_along_dim(place, dim)
            tolerance = torch.finfo(found.dtype).eps ** 0.5
            if not torch.allclose(found, expected[name], rtol=tolerance, atol=tolerance, equal_nan=True):
                raise EnumerationError(
                    next(iter(self.sites)),
                    f"{name!r} has another log density where all values of the discrete latents are taken at once than "
                    f"where they are taken one by one: {BROADCAST}",
                )

    def sum_out(self, sites: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[Sequence[Any], Tensor]]:
        """log Σ exp over all values, of these messages with their unscaled log densities.

        Yields what is left, a part for every set of sites that hang together, with the frames of its plates.
        Raises: EnumerationError where plates, scales or shapes do not allow it.
        """
        graph = _Graph(self)
        for message, log_prob in sites:
            graph.add(message, log_prob)
        return graph.parts()


@dataclass
class _Weighted:
    """The factors that share a scale: ordinal (symbols of plates) → packed tensors."""

    scale: Tensor
    site: str
    tree: OrderedDict[frozenset[str], list[Any]] = field(default_factory=OrderedDict)
    summed: set[str] = field(default_factory=set)

    def check_scale(self, discrete: str, dims: list[int]) -> None:
        """A scale weighs whole sums: it may differ from row to row of the plates that are left, and nowhere else."""
        shape = self.scale.shape
        if any(shape[dim] > 1 and dim not in dims for dim in range(-len(shape), 0)):
            raise EnumerationError(
                discrete,
                f"{self.site!r} has a poutine.scale of shape {tuple(shape)}, which weighs what one value of a "
                "discrete latent has in common: give one weight to everything that hangs together",
            )


def _brief(scale: Tensor) -> str:
    return f"{float(scale):g}" if scale.numel() == 1 else f"weights of shape {tuple(scale.shape)}"


class _Graph:
    """Factors with a symbol for each plate and each discrete latent, as Pyro packs them."""

    def __init__(self, enumeration: Enumeration) -> None:
        self.enumeration = enumeration
        self.plates: dict[str, str] = {}
        self.frames: dict[str, Any] = {}
        self.owners: dict[str, tuple[str, frozenset[str]]] = {}
        self.weighted: list[_Weighted] = []

    def add(self, message: Any, log_prob: Tensor) -> None:
        name, infer = message["name"], message["infer"]
        symbols = {}
        for frame in message["cond_indep_stack"]:
            if frame.vectorized:
                symbol = self.plates.setdefault(frame.name, get_symbol(2 * len(self.plates)))
                self.frames[symbol] = frame
                symbols[frame.dim] = symbol
        ordinal = frozenset(symbols.values())
        symbols.update({dim: get_symbol(1 + 2 * id_) for dim, id_ in infer.get(DIM_TO_ID, {}).items()})
        if name in self.enumeration.sites:
            self.owners[symbols[infer[ENUMERATE_DIM]]] = name, ordinal
        elif message["mask"] is not None:
            log_prob = scale_and_mask(log_prob, 1.0, message["mask"])
        term = self._packed(log_prob, symbols)
        for symbol in packed_dims(term):
            owner, of_owner = self.owners.get(symbol, (name, frozenset()))
            if not of_owner <= ordinal:
                plate = ", ".join(repr(self.frames[one].name) for one in sorted(of_owner - ordinal))
                raise EnumerationError(
                    owner,
                    f"{name!r} depends on the discrete {owner!r}, but stands outside its plate {plate}: "
                    "rows of a plate are summed out one by one, so nothing outside may read them",
                )
        group = self._group(name, torch.as_tensor(message["scale"], device=log_prob.device))
        group.tree.setdefault(ordinal, []).append(term)
        group.summed.update(symbol for symbol in packed_dims(term) if symbol in self.owners)

    def parts(self) -> Iterator[tuple[Sequence[Any], Tensor]]:
        self._check_scales()
        dims = {symbol: frame.dim for symbol, frame in self.frames.items()}
        for group in self.weighted:
            try:
                contracted = contract_tensor_tree(group.tree, group.summed, ring=_ExactLogRing())
            except NotImplementedError as error:
                plates = ", ".join(sorted(repr(self.frames[one].name) for one in frozenset().union(*group.tree)))
                raise EnumerationError(
                    self.owners[min(group.summed)][0],
                    f"{group.site!r} hangs together with discrete latents of plates that cross ({plates}): such a sum "
                    "does not fall apart into rows. Loop over the shorter plate (`for i in pyro.plate(...)`)",
                ) from error
            for ordinal, terms in contracted.items():
                frames = [self.frames[symbol] for symbol in ordinal]
                group.check_scale(next(iter(self.enumeration.sites)), [frame.dim for frame in frames])
                for term in terms:
                    yield frames, scale_and_mask(packed.unpack(term, dims), group.scale, None)

    def _packed(self, log_prob: Tensor, symbols: Mapping[int, str]) -> Tensor:
        """Without dimensions of size one; those in no plate summed, as they are where nothing is enumerated."""
        shape = log_prob.shape
        at = {dim: shape[dim] for dim in range(-len(shape), 0) if shape[dim] > 1}
        loose = [dim for dim in at if dim not in symbols]
        if loose:
            log_prob = log_prob.sum(loose, keepdim=True)
        kept = [dim for dim in at if dim in symbols]
        # The new first dimension makes a tensor of its own, whatever watches the computation: one carries one name.
        term = log_prob.unsqueeze(0).reshape([at[dim] for dim in kept])
        return with_packed_dims(term, "".join(symbols[dim] for dim in kept))

    def _group(self, name: str, scale: Tensor) -> _Weighted:
        for group in self.weighted:
            if torch.equal(group.scale, scale):
                return group
        self.weighted.append(_Weighted(scale, name))
        return self.weighted[-1]

    def _check_scales(self) -> None:
        seen: dict[str, _Weighted] = {}
        for group in self.weighted:
            for symbol in group.summed:
                other = seen.setdefault(symbol, group)
                if other is not group:
                    site = self.owners[symbol][0]
                    raise EnumerationError(
                        site,
                        f"{other.site!r} and {group.site!r} hang together through the discrete {site!r}, but are "
                        f"scaled differently (by {_brief(other.scale)} and {_brief(group.scale)}; by poutine.scale, or "
                        "by a subsampled plate that only one stands in)",
                    )


class _ExactLogRing(LogRing):
    """Sums of products in log space, each by one shift of the whole product: derivatives are exact there too."""

    def sumproduct(self, terms: Iterable[Any], dims: Iterable[str]) -> Any:
        factors = list(terms)
        sizes = {symbol: size for term in factors for symbol, size in zip(packed_dims(term), term.shape, strict=True)}
        inputs = tuple(packed_dims(term) for term in factors)
        used: set[int] = set()
        for group, summed in _elimination(inputs, tuple(sorted(sizes.items())), frozenset(dims).intersection(sizes)):
            used.update(group)
            factors.append(_log_sum([factors[k] for k in group], summed))
        left = [factor for k, factor in enumerate(factors) if k not in used]
        return left[0] if len(left) == 1 else _log_sum(left, "")


@lru_cache(maxsize=64)
def _elimination(
    inputs: tuple[str, ...], sizes: tuple[tuple[str, int], ...], dims: frozenset[str]
) -> list[tuple[list[int], str]]:
    """Steps: which factors to multiply, and what to sum out of the product; it becomes the next factor.

    The variable whose product has the fewest entries goes first: along a chain that is the forward algorithm.
    """
    size = dict(sizes)
    factors = [frozenset(symbols) for symbols in inputs]
    holding: dict[str, set[int]] = {symbol: set() for symbol in size}
    for k, symbols in enumerate(factors):
        for symbol in symbols:
            holding[symbol].add(k)

    def weight(symbol: str) -> int:
        return prod(size[other] for other in frozenset().union(*(factors[k] for k in holding[symbol])))

    weights = {symbol: weight(symbol) for symbol in sorted(dims)}
    queue = [(w, symbol) for symbol, w in weights.items()]
    heapify(queue)
    steps: list[tuple[list[int], str]] = []
    while queue:
        w, symbol = heappop(queue)
        if weights.get(symbol) != w:
            continue
        group = set(holding[symbol])
        product = frozenset().union(*(factors[k] for k in group))
        summed = {one for one in product & dims if holding[one] <= group}
        steps.append((sorted(group), "".join(sorted(summed))))
        for one in summed:
            weights.pop(one)
        factors.append(product - summed)
        for one in product - summed:
            holding[one] = (holding[one] - group) | {len(factors) - 1}
        for one in product - summed:
            if one in weights and weights[one] != (now := weight(one)):
                weights[one] = now
                heappush(queue, (now, one))
    return steps


def _log_sum(factors: list[Any], summed: str) -> Any:
    """log Σ exp of the sum of ``factors`` over the symbols ``summed``."""
    symbols = "".join(sorted(set().union(*(packed_dims(factor) for factor in factors))))
    total: Any = None
    for factor in factors:
        own = packed_dims(factor)
        ordered = sorted(own)
        aligned = factor.permute([own.index(symbol) for symbol in ordered]) if ordered != list(own) else factor
        if len(own) < len(symbols):
            sizes = dict(zip(own, factor.shape, strict=True))
            aligned = aligned.reshape([sizes.get(symbol, 1) for symbol in symbols])
        total = aligned if total is None else total + aligned
    if summed:
        total = _logsumexp(total, [symbols.index(symbol) for symbol in summed])
    elif len(factors) == 1:
        return factors[0]
    return with_packed_dims(total, "".join(symbol for symbol in symbols if symbol not in summed))


def _logsumexp(terms: Tensor, dims: list[int]) -> Tensor:
    """log Σ exp over some dimensions; a sum of impossible terms alone is −inf, and has no slope instead of nan."""
    impossible = terms.detach().amax(dims, keepdim=True) == -inf
    if not bool(impossible.any()):
        return terms.logsumexp(dims)
    total = terms.masked_fill(impossible, 0.0).logsumexp(dims, keepdim=True)
    return total.masked_fill(impossible, -inf).squeeze(dims)


class TooLarge(ModelError):
    """A tensor would not fit; ``size`` in bytes."""

    def __init__(self, shape: torch.Size, size: int) -> None:
        self.shape, self.size = shape, size
        super().__init__(f"a tensor of shape {tuple(shape)} takes {size / 2**30:.3g} GiB")


class MemoryGuard(DispatchMode):
    """Inside, an operation whose result would take more than ``limit`` bytes is not begun.

    What it would make is found on torch's meta device, which computes shapes alone.
    Raises: TooLarge, out of whatever computes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if operands and 8 * prod(max(1, one.numel()) for one in operands) > self.limit:  # else no broadcast reaches it
            self._rehearse(func, args, kwargs)
        return func(*args, **kwargs)

    def _rehearse(self, func: Any, args: Any, kwargs: Any) -> None:
        def shadow(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return torch.device("meta") if isinstance(value, torch.device) else value
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

        try:
            made = func(*pytree.tree_map(shadow, args), **pytree.tree_map(shadow, kwargs))
        except Exception:  # its result's shape hangs on numbers: not ours to foresee
            return
        for one in pytree.tree_leaves(made):
            if isinstance(one, Tensor) and one.untyped_storage().nbytes() > self.limit:
                raise TooLarge(one.shape, one.untyped_storage().nbytes())
