"""The trust-region subproblem against its own optimality conditions (Moré & Sorensen 1983, Lemma 2.1) and scipy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hofit.optim.subproblem.by_rows import RowSteps, solve_rows


def rows(kind: str, n: int = 60, d: int = 4) -> tuple[Tensor, Tensor]:
    """Gradients (n, d) and Hessians (n, d, d) of one kind."""
    generator = torch.Generator().manual_seed(len(kind))
    Q, _ = torch.linalg.qr(torch.randn(n, d, d, generator=generator))
    eigenvalues = torch.randn(n, d, generator=generator).abs() + 0.1
    g = torch.randn(n, d, generator=generator)
    if kind == "indefinite":
        eigenvalues[:, : d // 2] *= -1
    elif kind == "semidefinite":
        eigenvalues[:, 0] = 0.0
    elif kind == "negative":
        eigenvalues *= -1
    elif kind == "zero":
        eigenvalues *= 0
    elif kind == "hard":  # the gradient has no part along the lowest eigenvector
        eigenvalues[:, 0] = -2.0
        g = g - (g[:, None] @ Q[:, :, :1])[:, 0] * Q[:, :, 0]
    elif kind == "stationary":
        eigenvalues[:, 0] = -1.0
        g = torch.zeros_like(g)
    elif kind == "huge":
        eigenvalues[:, 0] *= -1
        eigenvalues, g = eigenvalues * 1e150, g * 1e150
    elif kind == "tiny":
        eigenvalues[:, 0] *= -1
        eigenvalues, g = eigenvalues * 1e-150, g * 1e-150
    H = Q @ (eigenvalues[..., None] * Q.mT)
    return g, (H + H.mT) / 2


KINDS = ["definite", "semidefinite", "indefinite", "negative", "zero", "hard", "stationary", "huge", "tiny"]


def model_value(g: Tensor, H: Tensor, p: Tensor) -> Tensor:
    return (g * p).sum(-1) + 0.5 * (p * (H @ p[..., None])[..., 0]).sum(-1)


@pytest.mark.parametrize("radius", [0.05, 0.7, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bounded_step_is_the_global_minimiser(kind: str, radius: float) -> None:
    g, H = rows(kind)
    solution = solve_rows(g, H, torch.full((len(g),), radius))
    p = solution.step
    length = p.norm(dim=-1)
    assert torch.isfinite(p).all() and (length <= radius * (1 + 1e-9)).all()
    scale = H.abs().amax((-1, -2)).clamp(min=1e-300)
    size = torch.maximum(scale * radius, g.abs().amax(-1)).clamp(min=1e-300)
    # (H + σI) p = −g with σ ≥ 0, H + σI ⪰ 0 and σ (Δ − ‖p‖) = 0 hold only at the global minimiser.
    sigma = -(p * (g + (H @ p[..., None])[..., 0])).sum(-1) / length.square().clamp(min=1e-300)
    sigma = torch.where(length > 0, sigma, torch.zeros_like(sigma))
    residual = g + (H @ p[..., None])[..., 0] + sigma[:, None] * p
    assert (residual.norm(dim=-1) <= 1e-6 * size).all()
    lowest = torch.linalg.eigvalsh(H)[:, 0]
    assert (lowest + sigma >= -1e-6 * scale).all()
    assert (sigma * (radius - length) <= 1e-6 * size).all()
    assert (sigma >= -1e-6 * scale).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unbounded_step_is_newtons_where_the_row_is_convex_and_downhill_elsewhere(kind: str) -> None:
    g, H = rows(kind)
    p = solve_rows(g, H, torch.full((len(g),), float("inf"))).step
    assert torch.isfinite(p).all()
    if kind == "definite":
        assert torch.allclose(p, -torch.linalg.solve(H, g), atol=1e-9)
    elif kind != "semidefinite":
        assert (p.norm(dim=-1) <= 60).all()
    slope = (g * p).sum(-1)
    assert (slope <= 1e-12 * g.abs().amax(-1).clamp(min=1e-300)).all()
    if kind in ("hard", "stationary"):
        assert (model_value(g, H, p) < 0).all()  # leaves the saddle


@pytest.mark.parametrize("radius", [0.3, float("inf")])
@pytest.mark.parametrize("kind", ["definite", "indefinite", "hard"])
def test_the_step_solves_the_modified_system_and_predicts_its_reduction(kind: str, radius: float) -> None:
    g, H = rows(kind)
    solution: RowSteps = solve_rows(g, H, torch.full((len(g),), radius))
    again = solution.extra - torch.linalg.solve(H + solution.modification, g)
    assert torch.allclose(again, solution.step, atol=1e-7)
    assert torch.allclose(solution.predicted, -model_value(g, H, solution.step), atol=1e-12)


def test_rows_of_length_one_are_clamped_as_pyros() -> None:
    g, H = torch.tensor([[3.0], [-3.0], [0.1]]), torch.ones(3, 1, 1)
    step = solve_rows(g, H, torch.full((3,), 1.0)).step
    assert torch.allclose(step, torch.tensor([[-1.0], [1.0], [-0.1]]), atol=1e-9)


def test_a_weak_direction_beside_a_huge_one_still_takes_its_step() -> None:
    """A curvature of −1.8e-5 is rounding beside 5.3e11, but the gradient along it is not."""
    g, H = torch.tensor([[8e-3, 0.0]]), torch.diag(torch.tensor([-1.8e-5, 5.3e11]))[None]
    for radius, step in ((10.0, -10.0), (float("inf"), -1.0)):
        found = solve_rows(g, H, torch.tensor([radius])).step
        assert torch.allclose(found, torch.tensor([[step, 0.0]]), rtol=1e-6)
