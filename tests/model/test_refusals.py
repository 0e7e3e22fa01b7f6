"""Models that cannot be fitted, and models that change while they are: what is said, when, and of which site."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

import hofit
from hofit.errors import HofitError, ModelError, StartError

ADAM = [{"params": "*", "optimizer": "adam"}]


def fit(model: Callable[..., Any], iterations: int = 20, **arguments: Any) -> hofit.FitResult:
    config = {"optimizers": ADAM, "stop": {"max_iterations": iterations}, "init": {"strategy": "zero"}}
    return hofit.fit(model, config, **arguments)


def refusal(model: Callable[..., Any], **arguments: Any) -> HofitError:
    with pytest.raises(HofitError) as caught:
        fit(model, **arguments)
    return caught.value


def observed(x: Any, scale: Any = 1.0) -> None:
    pyro.sample("y", dist.Normal(x, scale), obs=torch.tensor(0.5))


# refused before the first step ------------------------------------------------------------------------------------


def discrete() -> None:
    observed(pyro.sample("z", dist.Bernoulli(0.5)))


def poisson() -> None:
    observed(pyro.sample("z", dist.Poisson(3.0)))


def nothing_to_fit() -> None:
    observed(1.0)


def no_density() -> None:
    pyro.param("z", torch.tensor(1.0))


def no_start() -> None:
    observed(pyro.param("z"))


def integer() -> None:
    observed(pyro.param("z", torch.tensor(1)))


def outside() -> None:
    observed(pyro.param("z", torch.tensor(-1.0), constraint=constraints.positive))


def on_the_edge() -> None:
    observed(1.0, 1.0 + pyro.param("z", torch.tensor(0.0), constraint=constraints.positive))


def twice() -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))
    observed(pyro.sample("z", dist.Normal(0.0, 1.0)))


def built_anew() -> None:
    z = pyro.module("z", torch.nn.Linear(1, 1))
    pyro.sample("y", dist.Normal(z(torch.ones(1)), 1.0).to_event(1), obs=torch.ones(1))


def of_another_dtype() -> None:
    z = pyro.module("z", FLOAT32)
    pyro.sample("y", dist.Normal(z(torch.ones(1, dtype=torch.float32)), 1.0).to_event(1), obs=torch.ones(1))


def tied() -> None:
    first, second = pyro.module("z", TIED)
    pyro.sample("y", dist.Normal(first(second(torch.ones(1))), 1.0).to_event(1), obs=torch.ones(1))


FLOAT32 = torch.nn.Linear(1, 1, dtype=torch.float32)
TIED = torch.nn.ModuleList([torch.nn.Linear(1, 1, dtype=torch.float64), torch.nn.Linear(1, 1, dtype=torch.float64)])
TIED[1].weight.data = TIED[0].weight.data


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (discrete, ["'z'", "discrete", "Bernoulli"]),
        (poisson, ["'z'", "discrete", "Poisson"]),
        (nothing_to_fit, ["nothing to fit"]),
        (no_density, ["no density"]),
        (no_start, ["'z'"]),
        (integer, ["'z'", "floating point"]),
        (outside, ["'z'"]),
        (on_the_edge, ["'z'", "edge"]),
        (twice, ["'z'"]),
        (built_anew, ["'z.weight'", "built anew"]),
        (of_another_dtype, ["'z.weight'", "float32", "float64"]),
        (tied, ["'z.0.weight'", "'z.1.weight'"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_cannot_be_fitted_is_refused_by_the_site_s_name(
    model: Callable[[], None], says: list[str]
) -> None:
    error = refusal(model)
    assert isinstance(error, ModelError)
    for part in says:
        assert part in str(error)


def test_a_model_that_raises_shows_the_user_s_own_frames_and_the_site_being_traced() -> None:
    def helper(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(3)

    def model() -> None:
        x = pyro.sample("first", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("second", dist.Normal(helper(x), 1.0), obs=torch.tensor(0.0))

    message = str(refusal(model))
    assert "'first'" in message
    assert "RuntimeError" in message
    assert "in helper: return x @ torch.ones(3)" in message
    assert "in model" in message
    assert "site-packages" not in message and "hofit/model" not in message


def test_a_loss_that_is_random_is_refused() -> None:
    assert "random" in str(refusal(lambda: observed(pyro.param("z", torch.tensor(0.0)) + torch.rand(()))))


def test_dropout_in_a_module_is_refused() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))

    def model() -> None:
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(net(torch.ones(8)), 1.0).to_event(1), obs=torch.ones(8))

    assert "random" in str(refusal(model))


def test_an_argument_that_the_model_does_not_take_is_refused_with_near_misses() -> None:
    def model(reaction: torch.Tensor) -> None: ...

    message = str(refusal(model, reactoin=1.0))
    assert '"reaction"' in message


# a start where the loss cannot be computed: exit 4 ----------------------------------------------------------------


def negative_scale() -> None:
    observed(pyro.param("z", torch.tensor(1.0)), -torch.ones(()))


def not_positive_definite() -> None:
    z = pyro.param("z", torch.tensor(1.0))
    observed(torch.linalg.cholesky(-z * torch.eye(2))[0, 0])


def nan_data() -> None:
    pyro.sample("y", dist.Normal(pyro.param("z", torch.tensor(1.0)), 1.0), obs=torch.tensor(float("nan")))


def nan_factor() -> None:
    pyro.factor("y", torch.log(-pyro.param("z", torch.tensor(1.0))))


def impossible() -> None:
    pyro.factor("y", torch.log(torch.zeros(())) - pyro.param("z", torch.tensor(1.0)) ** 2)


def nan_gradient() -> None:
    z = pyro.param("z", torch.tensor(0.0))
    pyro.factor("y", -torch.where(z > 10, z.sqrt(), (0.0 * z).sqrt() + z**2))


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (negative_scale, "['\"]y['\"]"),
        (not_positive_definite, r"torch\.linalg\.cholesky\(-z"),
        (nan_data, "'y'"),
        (nan_factor, "['\"]y['\"]"),
        (impossible, "'y'"),
        (nan_gradient, "'z'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_start_without_a_finite_loss_ends_with_exit_4_and_says_where(model: Callable[[], None], place: str) -> None:
    try:
        result = fit(model)
    except StartError as error:
        assert error.exit_code == 4
        assert re.search(place, str(error))
    else:
        assert (result.status, result.exit_code, result.iterations) == ("non_finite", 4, 0)
        assert re.search(place, " ".join(result.remarks))


# a model that changes ---------------------------------------------------------------------------------------------


class Changing:
    """A model that is another one once ``x`` has moved by ``after``, or from its n-th call on."""

    def __init__(self, change: str, after: float = float("inf"), from_call: int = 10**9, for_good: bool = True) -> None:
        self.change, self.after, self.from_call, self.for_good = change, after, from_call, for_good
        self.calls, self.changed = 0, False

    def __call__(self) -> None:
        self.calls += 1
        x = pyro.param("x", torch.tensor(1.0))
        changed = abs(x.item() - 1.0) > self.after or self.calls >= self.from_call
        self.changed = changed or (self.changed and self.for_good)
        kind, _, what = self.change.partition(" ")
        there = not self.changed if what == "vanishes" else self.changed if what == "appears" else True
        size = 3 if self.changed and what == "changes shape" else 2
        if self.changed and what == "is cleared":
            pyro.clear_param_store()
        if kind == "latent" and there:
            x = x + pyro.sample("odd", dist.Normal(torch.zeros(size), 1.0).to_event(1)).sum()
        elif kind in ("parameter", "store") and there:
            x = x + pyro.param("odd", torch.ones(size)).sum()
        elif kind == "model" and self.changed:
            raise RuntimeError("odd")
        observed(x)


CHANGES = [
    "parameter appears",
    "parameter vanishes",
    "parameter changes shape",
    "latent appears",
    "latent vanishes",
    "latent changes shape",
    "store is cleared",
    "model raises",
]
NAMED = re.compile("'odd'|RuntimeError: odd|'x' was replaced")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("from_call", [2, 3, 4, 5, 6])
def test_a_model_that_changes_before_the_first_step_is_an_error_that_names_the_site(
    change: str, from_call: int
) -> None:
    """A call that no check looks back at may differ: then the fit is that of the model as it has become."""
    model = Changing(change, from_call=from_call)
    try:
        result = fit(model, iterations=3)
    except ModelError as error:
        assert error.exit_code == 2
        assert NAMED.search(str(error))
    else:
        if result.status == "model_error":
            assert NAMED.search(" ".join(result.remarks))
        else:
            as_it_is = fit(Changing(change, from_call=1), iterations=3)
            assert result.loss == pytest.approx(as_it_is.loss, rel=1e-12)
            assert set(result.values) == set(as_it_is.values)


@pytest.mark.parametrize("for_good", [False, True], ids=["there", "from then on"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_changes_later_ends_model_error_at_the_last_good_point_and_names_the_site(
    change: str, for_good: bool
) -> None:
    # adam moves x by its lr of 0.001 a step: the third step finds another model
    result = fit(Changing(change, after=0.0025, for_good=for_good))
    assert (result.status, result.converged, result.exit_code) == ("model_error", False, 4)
    assert NAMED.search(" ".join(result.remarks))
    good = fit(Changing(change), iterations=2)
    assert result.params.keys() == good.params.keys()
    assert all(torch.equal(result.params[name], good.params[name]) for name in good.params)


def test_randomness_that_begins_later_is_never_called_converged() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor(1.0))
        noise = torch.randn(()) if abs(x.item() - 1.0) > 0.0025 else torch.zeros(())
        observed(x + noise)

    assert not fit(model, iterations=60).converged
