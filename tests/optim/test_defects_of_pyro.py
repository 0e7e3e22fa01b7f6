"""The eight defects of pyro.optim.multi: each shown on Pyro's own class, and absent here."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pyro
import pyro.optim.multi as theirs
import pytest
import torch
from torch import Tensor

import hofit
from hofit.optim import MixedMultiOptimizer, Newton


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def coupled() -> tuple[Tensor, dict[str, Tensor]]:
    """A loss in which a's gradient holds b, so that the graph saves both."""
    params = {"a": leaf(1.0, 2.0), "b": leaf(0.5, -1.0)}
    return ((params["a"] * params["b"]) ** 2).sum() + (params["a"] - params["b"]).square().sum(), params


def step_of(kind: Any) -> dict[str, Tensor]:
    loss, params = coupled()
    sgd = pyro.optim.SGD({"lr": 0.1})
    kind([(["a"], pyro.optim.SGD({"lr": 0.1})), (["b"], sgd)]).step(loss, params)
    return params


def test_1_coupled_parts_move_simultaneously_from_one_point() -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step_of(theirs.MixedMultiOptimizer)
    moved = step_of(MixedMultiOptimizer)
    loss, params = coupled()
    gradients = torch.autograd.grad(loss, list(params.values()))
    for (name, before), gradient in zip(params.items(), gradients, strict=True):
        assert torch.allclose(moved[name], before - 0.1 * gradient, atol=1e-15)


def test_1_alternating_parts_see_what_the_part_before_has_reached() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor(1.0))
        b = pyro.param("b", torch.tensor(3.0))
        pyro.factor("f", -(0.5 * a**2 + 0.5 * b**2 + 0.5 * a * b))

    entries = [{"params": "a", "optimizer": "newton"}, {"params": "b", "optimizer": "newton"}]
    config = {"optimizers": entries, "stop": {"max_iterations": 1}}
    together = hofit.fit(model, {**config, "order": "simultaneous"})
    in_turn = hofit.fit(model, {**config, "order": "alternating"})
    # Block minimisers: a ← −b/2, b ← −a/2.
    assert together.params["a"].item() == pytest.approx(-1.5) and together.params["b"].item() == pytest.approx(-0.5)
    assert in_turn.params["a"].item() == pytest.approx(-1.5) and in_turn.params["b"].item() == pytest.approx(0.75)


@pytest.mark.parametrize("shape", [(), (4,), (3, 5)])
def test_2_rows_of_any_length_and_scalars(shape: tuple[int, ...]) -> None:
    target = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)

    def loss_at(x: Tensor) -> Tensor:
        return ((x - target) ** 2).sum() + 0.1 * ((x - target).sum(-1) ** 2 if x.dim() else (x - target) ** 2).sum()

    x = torch.zeros(shape, requires_grad=True)
    with pytest.raises((NotImplementedError, ValueError)):
        theirs.Newton().step(loss_at(x), {"x": x})
    Newton().step(loss_at(x), {"x": x})
    assert torch.allclose(x, target, atol=1e-12)


def random_walk(x: Tensor) -> Tensor:
    return 0.5 * (x - 1).square().sum() + 4.0 * (x[1:] - x[:-1]).square().sum()


def test_3_rows_that_interact_are_found_out_and_joined() -> None:
    start = torch.tensor([[3.0], [-2.0], [5.0], [0.0]])
    fooled = start.clone().requires_grad_(True)
    theirs.Newton().step(random_walk(fooled), {"x": fooled})
    assert not torch.allclose(fooled, torch.ones(4, 1), atol=0.1)  # sums over rows: wrong curvature without a word
    x = start.clone().requires_grad_(True)
    newton = Newton()
    newton.step(random_walk(x), {"x": x})
    assert torch.allclose(x, torch.ones(4, 1), atol=1e-12)
    assert newton.remarks() == ["rows of x interact: newton took them as one row"]


def test_3_rows_in_a_plate_that_interact_are_joined_and_said() -> None:
    def model(n: int) -> None:
        with pyro.plate("rows", n):
            x = pyro.sample("x", pyro.distributions.Normal(torch.zeros(n), 1.0))
        pyro.factor("walk", -2.0 * (x[1:] - x[:-1] - 1).square().sum())

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, n=6)
    assert result.converged and result.iterations <= 2
    assert "rows of x interact: newton took them as one row" in result.remarks


def test_3_too_many_rows_that_interact_end_as_a_model_error_by_name() -> None:
    def model(n: int) -> None:
        with pyro.plate("rows", n):
            x = pyro.sample("x", pyro.distributions.Normal(torch.zeros(n), 1.0))
        pyro.factor("walk", -2.0 * (x[1:] - x[:-1] - 1).square().sum())

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, n=1001)
    assert result.status == "model_error" and "rows of x interact" in result.remarks[0]


def test_4_negative_curvature_is_no_leap() -> None:
    def bump(x: Tensor) -> Tensor:
        return -(x.square()).sum() + 0.1 * x.pow(4).sum()  # concave at 0.1

    x = leaf(0.1)
    theirs.Newton().step(bump(x), {"x": x})
    assert x.abs().item() > 1e6
    x = leaf(0.1)
    Newton().step(bump(x), {"x": x})
    assert 0.1 < x.item() <= 1.1 and bump(x) < bump(leaf(0.1))


def test_4_a_saddle_is_left_and_not_walked_into() -> None:
    def saddle(x: Tensor) -> Tensor:
        return (0.5 * x[..., 0] ** 2 - 0.5 * x[..., 1] ** 2 + 0.25 * x[..., 1] ** 4).sum()

    x = leaf(1.0, 0.1)
    for _ in range(5):
        theirs.Newton().step(saddle(x), {"x": x})
    assert x.abs().max() < 1e-3  # at the saddle
    for radii in ({}, {"x": 0.5}):
        x = leaf(1.0, 0.1)
        newton = Newton(radii)
        for _ in range(20):
            newton.step(saddle(x), {"x": x})
        assert torch.allclose(x, torch.tensor([0.0, 1.0]), atol=1e-9)


def test_4_the_radius_is_kept_and_the_step_is_the_best_inside_it() -> None:
    from scipy.optimize import minimize

    H = torch.tensor([[3.0, 1.0, 0.0], [1.0, -2.0, 0.5], [0.0, 0.5, 1.0]])
    g = torch.tensor([1.0, 0.2, -2.0])
    x = torch.zeros(3, requires_grad=True)
    Newton({"x": 0.7}).step(g @ x + 0.5 * x @ H @ x, {"x": x})
    step = x.detach()
    assert step.norm().item() == pytest.approx(0.7, rel=1e-9)

    def value(p: Any) -> float:
        return float(g.numpy() @ p + 0.5 * p @ H.numpy() @ p)

    inside = {"type": "ineq", "fun": lambda p: 0.49 - p @ p}
    starts = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).numpy() * 0.4
    best = min(minimize(value, p, constraints=inside, method="SLSQP", tol=1e-14).fun for p in starts)
    assert value(step.numpy()) == pytest.approx(best, rel=1e-7)


def test_5_a_nan_loss_is_no_step_that_looks_converged() -> None:
    x = leaf(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro warns where validation is on
        theirs.Newton().step((x**2 * float("nan")).sum(), {"x": x})
    assert x.item() == 1.0  # looks like a fixed point
    with pytest.raises(FloatingPointError, match="nan"):
        Newton().step((x**2 * float("nan")).sum(), {"x": x})
    with pytest.raises(FloatingPointError, match="nan"):
        MixedMultiOptimizer([(["x"], Newton())]).step((x**2 * float("nan")).sum(), {"x": x})


def test_6_a_parameter_in_no_part_is_an_error_and_names_are_patterns() -> None:
    frozen, params = coupled()
    theirs.MixedMultiOptimizer([(["a"], theirs.Newton())]).step(frozen, params)
    assert torch.equal(params["b"], torch.tensor([0.5, -1.0]))  # in silence
    with pytest.raises(ValueError, match="'b'"):
        loss, params = coupled()
        MixedMultiOptimizer([(["a"], Newton())]).step(loss, params)
    loss, params = coupled()
    MixedMultiOptimizer([(["a*"], Newton({"a": 0.1})), (["*"], pyro.optim.SGD({"lr": 0.1}))]).step(loss, params)
    assert not torch.equal(params["b"], torch.tensor([0.5, -1.0]))
    assert not hasattr(theirs.MixedMultiOptimizer, "state_dict")
    assert inspect.isfunction(MixedMultiOptimizer.state_dict)


def test_6_overlap_is_a_value_error() -> None:
    for kind in (theirs.MixedMultiOptimizer, MixedMultiOptimizer):
        with pytest.raises(ValueError, match="'a'"):
            kind([(["a"], Newton()), (["a", "b"], Newton())])


def test_7_a_gradient_step_asks_for_no_second_order_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = torch.autograd.grad

    def watched(*args: Any, **named: Any) -> Any:
        asked.append(bool(named.get("create_graph")))
        return original(*args, **named)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    loss, params = coupled()
    theirs.PyroMultiOptimizer(pyro.optim.Adam({"lr": 0.1})).step(loss, params)
    assert asked == [True]
    asked.clear()
    loss, params = coupled()
    MixedMultiOptimizer([(["*"], pyro.optim.Adam({"lr": 0.1}))]).step(loss, params)
    assert asked == [False]


def test_8_nothing_is_ever_unpickled(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import pickle

    def forbidden(*args: Any, **named: Any) -> None:
        raise AssertionError("unpickled")

    pyro.get_param_store().save(str(tmp_path / "store"))
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    with pytest.raises(AssertionError, match="unpickled"):
        pyro.get_param_store().load(str(tmp_path / "store"))
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, pyro.distributions as dist\ndef model():\n    pyro.sample('x', dist.Normal(3., 1.))\n"
    )
    config = {"optimizers": [{"params": "*", "optimizer": "adam"}], "stop": {"max_iterations": 3}}
    hofit.fit(path, config, run_dir=tmp_path / "run")
    assert hofit.resume(tmp_path / "run", set=["stop.max_iterations=5"]).iterations == 5
