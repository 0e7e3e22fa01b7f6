"""What makes a Newton step differentiable: its Hessian's products, and the shift of a radius that binds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..curvature.rows import Product, RowGroup
from ..point import Params


def differentiable_product(group: RowGroup, params: Params, gradients: Sequence[Tensor]) -> Product:
    """Hessian-vector products that keep their own graph, so that a step can be differentiated through its Hessian."""
    leaves = [params[name] for name in group.names]
    live = {name: g for name, g in zip(group.names, gradients, strict=True) if g.requires_grad}
    graph = {"create_graph": True, "allow_unused": True, "materialize_grads": True}

    def product(vectors: Params) -> Params:
        if not live:
            return {name: torch.zeros_like(vectors[name]) for name in group.names}
        probes = zip(*(vectors[name] for name in live), strict=True)
        rows = [torch.autograd.grad(list(live.values()), leaves, list(probe), **graph) for probe in probes]
        return {name: torch.stack(column) for name, column in zip(group.names, zip(*rows, strict=True), strict=True)}

    return product


def shift_of_active_radius(step: Tensor, curvature: Tensor, radius: Tensor) -> Tensor:
    """Zero, with the derivative that the shift σ has where a radius binds: ‖p(σ)‖ = Δ holds on all sides.

    dσ = pᵀdp / pᵀ(H + σI)⁻¹p at constant σ, and dp changes by −(H + σI)⁻¹p dσ.
    """
    length = step.detach().norm(dim=-1)
    active = torch.isfinite(radius) & (length >= radius * (1 - 1e-9))
    if not bool(active.any()):
        return torch.zeros_like(step)
    p = step.detach()
    q = torch.linalg.solve(curvature, p[..., None])[..., 0]
    excess = (step.square().sum(-1) - length.square()) / (2 * (p * q).sum(-1))
    shift: Tensor = torch.where(active, excess, torch.zeros_like(excess))[..., None] * q
    return shift
