"""The two meanings of MAP, each against a closed form and against Pyro's own."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from torch import Tensor

import hofit

NEWTON = [{"params": "*", "optimizer": "newton"}]


def gamma() -> None:
    pyro.sample("x", dist.Gamma(2.0, 1.0))


@pytest.mark.parametrize(("objective", "mode"), [("map", 1.0), ("map_unconstrained", 2.0)])
def test_the_mode_of_gamma_2_1_is_1_constrained_and_2_unconstrained(objective: str, mode: float) -> None:
    result = hofit.fit(gamma, {"optimizers": NEWTON, "objective": objective})
    assert result.status == "converged" and result.objective == objective
    assert result.values["x"].item() == pytest.approx(mode, rel=1e-6)


@pytest.mark.parametrize("objective", ["map", "map_unconstrained"])
def test_simplex_and_interval_latents_have_their_jacobian(objective: str) -> None:
    def model() -> None:
        pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
        pyro.sample("q", dist.Beta(3.0, 2.0))

    result = hofit.fit(model, {"optimizers": NEWTON, "objective": objective, "order": "alternating"})
    # The density's mode is (a − 1)/(Σa − k); with the Jacobian of the stick-breaking or logistic map it is a/Σa.
    p = torch.tensor([1.0, 2.0, 3.0]) / 6 if objective == "map" else torch.tensor([2.0, 3.0, 4.0]) / 9
    q = 2 / 3 if objective == "map" else 3 / 5
    assert torch.allclose(result.values["p"], p, atol=1e-7) and result.values["q"].item() == pytest.approx(q, abs=1e-7)
    assert result.params["p"].shape == (2,)


def test_map_is_the_minus_log_density_that_auto_delta_minimises() -> None:
    def model(y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, sigma), obs=y)

    y = torch.tensor([1.0, 2.5, 0.3, 4.0], dtype=torch.float64)
    result = hofit.fit(model, {"optimizers": NEWTON, "order": "alternating"}, y=y)
    guide = AutoDelta(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(1500):
        svi.step(y)
    assert result.loss == pytest.approx(svi.evaluate_loss(y), abs=1e-6)
    for name, value in guide.median().items():
        assert result.values[name].item() == pytest.approx(value.item(), abs=2e-3)


def test_the_loss_of_a_model_without_priors_is_minus_the_log_likelihood() -> None:
    from scipy import stats

    def model(y: Tensor) -> None:
        mu = pyro.param("mu", torch.tensor(0.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Poisson(mu.exp()), obs=y)

    y = [3.0, 5.0, 2.0]
    result = hofit.fit(model, {"optimizers": NEWTON}, y=y)
    assert result.values["mu"].exp().item() == pytest.approx(10 / 3, rel=1e-8)
    assert result.log_likelihood == pytest.approx(stats.poisson(10 / 3).logpmf(y).sum(), rel=1e-12)
    assert hofit.fit(gamma, {"optimizers": NEWTON}).log_likelihood is None


def test_what_a_fit_touches_is_put_back() -> None:
    torch.set_default_dtype(torch.float32)
    pyro.param("keep", torch.tensor(7.0))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    flags = torch.distributions.Distribution._validate_args
    hofit.fit(gamma, {"optimizers": NEWTON})
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() == threads
    assert torch.distributions.Distribution._validate_args == flags
    assert list(pyro.get_param_store().keys()) == ["keep"] and pyro.param("keep").item() == 7.0
