"""The wrapped optimizers equal the library used directly, step for step, to the last bit."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim.multi import MultiOptimizer
from torch import Tensor

import hofit
from hofit.optim.options import NOT_OFFERED
from hofit.optim.schedules import SCHEDULES
from hofit.optim.torch_part import GRADIENT_OPTIMIZERS
from tests.contracts.test_optimizers import OPTIONS, SCHEDULE_OPTIONS


def model(y: Tensor) -> None:
    w = pyro.param("w", lambda: torch.tensor([[1.5, -1.0], [0.5, 2.0]]))
    v = pyro.param("v", lambda: torch.tensor([[0.3, 0.1], [0.2, -0.4]]))
    pyro.sample("y", dist.StudentT(4.0, w @ v, 0.5).to_event(2), obs=y)


Y = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)


def directly(
    name: str, options: dict[str, Any], schedule: tuple[str, dict[str, Any]] | None, steps: int
) -> list[Tensor]:
    leaves = [
        torch.tensor([[1.5, -1.0], [0.5, 2.0]], requires_grad=True),
        torch.tensor([[0.3, 0.1], [0.2, -0.4]], requires_grad=True),
    ]
    optimizer = GRADIENT_OPTIMIZERS[name](leaves, **options)
    scheduler = SCHEDULES[schedule[0]](optimizer, **schedule[1]) if schedule else None
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -dist.StudentT(4.0, leaves[0] @ leaves[1], 0.5).to_event(2).log_prob(Y)
        loss.backward()
        optimizer.step()
        if schedule and schedule[0] == "reduce_on_plateau":
            scheduler.step(loss.item())  # type: ignore[union-attr]
        elif scheduler is not None:
            scheduler.step()
    return leaves


def by_hofit(entry: dict[str, Any], steps: int) -> list[Tensor]:
    stop = {"max_iterations": steps, "gradient": 0.0, "relative_loss": 0.0, "patience": 1000}
    result = hofit.fit(model, {"optimizers": [{"params": "*", **entry}], "stop": stop}, y=Y)
    return [result.params["w"], result.params["v"]]


@pytest.mark.parametrize("name", GRADIENT_OPTIMIZERS)
def test_it_equals_the_library_to_the_last_bit(name: str) -> None:
    options = OPTIONS.get(name, {"lr": 0.03})
    ours = by_hofit({"optimizer": name, **options}, 25)
    for mine, other in zip(ours, directly(name, options, None, 25), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_equals_the_librarys_to_the_last_bit(name: str) -> None:
    options = {"lr": 0.03, "momentum": 0.9}
    schedule = SCHEDULE_OPTIONS.get(name, {})
    ours = by_hofit({"optimizer": "sgd", **options, "schedule": {"name": name, **schedule}}, 25)
    for mine, other in zip(ours, directly("sgd", options, (name, schedule), 25), strict=True):
        assert torch.equal(mine, other)


def test_every_optimizer_of_torch_that_steps_on_one_gradient_is_there() -> None:
    library = {
        kind
        for kind in vars(torch.optim).values()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    left_out = {torch.optim.LBFGS, torch.optim.SparseAdam}  # needs a closure; steps on sparse gradients only
    assert library - left_out <= set(GRADIENT_OPTIMIZERS.values())


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"optimizer": "adam", "lr": -0.1}, r"optimizers\.0\.lr: .*learning rate"),
        ({"optimizer": "adam", "lr": "fast"}, r"optimizers\.0\.lr: must be a number"),
        ({"optimizer": "adam", "rate": 0.1}, r"optimizers\.0\.rate: adam has no such option"),
        ({"optimizer": "adam", "betas": [0.9]}, r"optimizers\.0\.betas: must be a list of 2"),
        ({"optimizer": "adam", "betas": [0.9, 1.5]}, r"optimizers\.0\.betas: .*beta"),
        ({"optimizer": "adam", "amsgrad": 1}, r"optimizers\.0\.amsgrad: must be true or false"),
        ({"optimizer": "adam", "maximize": True}, r"maximize: not offered"),
        ({"optimizer": "adma"}, r"no optimizer 'adma'; did you mean .*\"adam\""),
        ({"optimizer": "sgd", "nesterov": True}, r"nesterov"),
        ({"optimizer": "newton", "trust_radius": -1}, r"trust_radius"),
        ({"optimizer": "newton", "trust_radius": {"q": 1.0}}, r"trust_radius\.q: no parameter of this entry matches"),
        ({"optimizer": "newton", "schedule": {"name": "step", "step_size": 3}}, r"newton has no lr"),
        (
            {"optimizer": "adam", "schedule": {"name": "stepp"}},
            r"schedule\.name: no schedule 'stepp'; did you mean \"step\"",
        ),
        ({"optimizer": "adam", "schedule": {"name": "step"}}, r"schedule\.step_size: .* needs it"),
        ({"optimizer": "adam", "schedule": {"name": "exponential", "gama": 0.9}}, r"schedule\.gama"),
    ],
)
def test_a_wrong_option_is_named(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(hofit.errors.ConfigError, match=told):
        by_hofit(entry, 1)


def test_muon_says_which_parameter_is_no_matrix() -> None:
    def vectors() -> None:
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(hofit.errors.ConfigError, match=r"'x': muon steps on matrices only, and this has shape \(3,\)"):
        hofit.fit(vectors, {"optimizers": [{"params": "*", "optimizer": "muon"}]})


def test_what_is_not_offered_is_not_listed() -> None:
    from hofit.optim.registry import registry

    for spec in registry().values():
        assert not {option.name for option in spec.options} & set(NOT_OFFERED)


class Halving(MultiOptimizer):
    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def get_step(self, loss: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value * self.factor for name, value in params.items()}


def test_a_model_module_adds_its_own_with_its_options(tmp_path: Any) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "from tests.optim.test_torch_part import Halving\n"
        "optimizers = {'halving': Halving}\n"
        "def model():\n    pyro.sample('x', dist.Normal(0., 1.))\n    pyro.sample('z', dist.Normal(1., 1.))\n"
    )
    entries: list[dict[str, Any]] = [
        {"params": "x", "optimizer": "halving", "factor": 0.25},
        {"params": "z", "optimizer": "newton"},
    ]
    config = {"optimizers": entries, "init": {"values": {"x": 8.0, "z": 5.0}}, "stop": {"max_iterations": 2}}
    result = hofit.fit(path, config)
    assert result.params["x"].item() == 0.5 and result.params["z"].item() == pytest.approx(1.0)
    with pytest.raises(hofit.errors.ConfigError, match=r"halving has no such option.*factor"):
        hofit.fit(path, {**config, "optimizers": [{**entries[0], "fcator": 1}, entries[1]]})
