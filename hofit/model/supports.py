"""What is asked of a support: its name in words, the transform that reaches it, whether two are one."""

from __future__ import annotations

import re
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, ImproperUniform, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent, biject_to, constraints, transform_to
from torch.distributions.transforms import IndependentTransform, Transform

from ..errors import ModelError
from ..internals import mask_of


def describe(constraint: constraints.Constraint) -> str:
    """The constraint in a word or two, with its bounds where they are numbers."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    kind = type(constraint).__name__.lstrip("_")
    if kind in ("GreaterThan", "GreaterThanEq") and _bound(getattr(constraint, "lower_bound", None)) == "0":
        return "positive"
    bounds = [
        f"{symbol} {_bound(getattr(constraint, name))}"
        for name, symbol in (("lower_bound", ">"), ("upper_bound", "<"))
        if hasattr(constraint, name)
    ]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return " and ".join(bounds) if bounds else words


def _bound(bound: Any) -> str:
    if isinstance(bound, Tensor) and bound.numel() > 1:
        return "a tensor"
    return f"{float(bound.detach() if isinstance(bound, Tensor) else bound):g}"


def is_flat(distribution: Any) -> bool:
    """Whether a density is the same everywhere on its support, as an improper or a masked one is."""
    if isinstance(distribution, MaskedDistribution) and mask_of(distribution) is False:
        return True
    if isinstance(distribution, (Independent, ExpandedDistribution, MaskedDistribution)):
        return is_flat(distribution.base_dist)
    return isinstance(distribution, ImproperUniform)


def latent_transform(support: constraints.Constraint, name: str) -> Transform:
    """A bijection where torch has one; else the transform that optimisers use, as for a positive definite matrix.

    Raises: ModelError that names the latent where there is neither.
    """
    if isinstance(support, constraints.interval) and bool(torch.as_tensor(support.upper_bound).isinf().all()):
        support = constraints.greater_than(support.lower_bound)  # torch takes such an interval for one with an end: nan
    for registered in (biject_to, transform_to):
        try:
            transform: Transform = registered(support)
            return transform
        except NotImplementedError:
            continue
    raise ModelError(f"the latent {name!r} has support {describe(support)}, which no transform reaches")


def same_support(one: constraints.Constraint, other: constraints.Constraint) -> bool:
    """Whether two supports are the same without looking at tensors: bounds that depend on a trace are not."""
    if one is other:
        return True
    if isinstance(one, constraints.independent) and isinstance(other, constraints.independent):
        return one.reinterpreted_batch_ndims == other.reinterpreted_batch_ndims and same_support(
            one.base_constraint, other.base_constraint
        )
    return False


def value_and_slope(transform: Transform, unconstrained: Tensor) -> tuple[Tensor, Tensor | None]:
    """The transform's value, and d value / d unconstrained if it is elementwise."""
    leaf = unconstrained.detach().requires_grad_(True)
    value = transform(leaf)
    if not is_elementwise(transform) or not value.requires_grad:
        return value.detach(), None
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def is_elementwise(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return not (transform.domain.event_dim or transform.codomain.event_dim)


def jacobian_of(transform: Transform, unconstrained: Tensor) -> Tensor:
    """d value / d unconstrained, both flat."""
    leaf = unconstrained.detach().requires_grad_(True)
    value = transform(leaf).reshape(-1)
    rows = [torch.autograd.grad(one, leaf, retain_graph=True)[0].reshape(-1) for one in value.unbind()]
    return torch.stack(rows)


def unread(transform: Transform, like: Tensor) -> Tensor | None:
    """Which numbers of an unconstrained tensor a transform never reads; None where it reads them all."""
    if is_elementwise(transform):
        return None
    generator = torch.Generator().manual_seed(37)
    read = torch.zeros_like(like, dtype=torch.bool)
    for _ in range(2):
        leaf = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like).requires_grad_(True)
        value = transform(leaf)
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(like)
        read |= torch.autograd.grad((weights * value).sum(), leaf)[0] != 0
    return None if bool(read.all()) else ~read
