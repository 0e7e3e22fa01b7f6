"""From a section of the config to an objective: what each type makes of a model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any, get_args

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from hofit.config.schema import Objective as Section
from hofit.model.elbo import ElboProgram
from hofit.model.module import ModelSource
from hofit.objective.base import Objective
from hofit.objective.build import OBJECTIVES, ObjectiveRefused, objective_of, program_of
from hofit.objective.density import DensityObjective
from hofit.objective.elbo import ElboObjective
from hofit.objective.marginal import MarginalObjective
from hofit.point import ByRow, HasInformation, TracedPoint, Watchable

Y = torch.tensor([0.5, 1.5])


def model(y: Tensor) -> None:
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        b = pyro.sample("b", dist.Normal(0.0, scale))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y)


def guide(y: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(len(y)))
    pyro.sample("scale", dist.LogNormal(pyro.param("log_scale", torch.zeros(())), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("b", dist.Normal(loc, 1.0))


Built = Callable[..., Objective]


@pytest.fixture
def built() -> Iterator[Built]:
    """built(section, integrated, guide=…): the objective of the model above."""
    with ExitStack() as stack:

        def build(section: dict[str, Any], integrated: dict[str, str] | None = None, guide: Any = None) -> Objective:
            asked = Section(**section)
            program = program_of(asked, source(guide), {"y": Y}, seed=5)
            stack.enter_context(program.scope())
            program.discover()
            return objective_of(asked, program, integrated or {})

        yield build


def source(guide: Any = None) -> ModelSource:
    module = ModuleType("module")
    if guide is not None:
        module.guide = guide  # type: ignore[attr-defined]
    return ModelSource(model, "model", module)


def test_every_type_of_the_schema_has_a_recipe_and_no_other() -> None:
    assert list(OBJECTIVES) == list(get_args(Section.model_fields["type"].annotation))


@pytest.mark.parametrize(("type", "counted"), [("map", []), ("map_unconstrained", ["b", "scale"])])
def test_a_density_counts_the_transforms_that_its_type_says(type: str, counted: list[str], built: Built) -> None:
    objective = built({"type": type})
    assert isinstance(objective, DensityObjective) and objective.type == type
    assert sorted(objective.jacobian) == counted


@pytest.mark.parametrize(("jacobian", "counted"), [(None, ["b"]), (True, ["b", "scale"])])
def test_a_marginal_integrates_what_it_is_told_and_says_so_of_the_sites(
    jacobian: bool | None, counted: list[str], built: Built
) -> None:
    section = {"type": "marginal", "integrate": {"b": "laplace"}, "jacobian": jacobian}
    objective = built(section, {"b": "laplace"})
    assert isinstance(objective, MarginalObjective) and objective.integrated == ["b"]
    assert sorted(objective.jacobian) == counted
    assert {name: site.role for name, site in objective.sites.items()} == {"scale": "latent", "b": "integrated"}


def test_one_node_of_quadrature_has_the_loss_of_laplace_s_method(built: Built) -> None:
    losses, start = [], {"scale": torch.tensor(0.3)}
    for method, more in (("laplace", {}), ("aghq", {"nodes": 1})):
        objective = built({"type": "marginal", "integrate": {"b": method}, **more}, {"b": method})
        losses.append(objective.at(start).value)
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


def test_a_marginal_of_discrete_latents_alone_is_a_density(built: Built) -> None:
    objective = built({"type": "marginal", "integrate": {"z": "enumerate"}})
    assert type(objective) is DensityObjective and objective.type == "marginal" and not objective.jacobian


@pytest.mark.parametrize(("fixed", "seed"), [(True, 5), (False, None)])
def test_an_elbo_draws_from_the_module_s_own_guide(fixed: bool, seed: int | None, built: Built) -> None:
    objective = built({"type": "elbo", "particles": 3, "fixed_draws": fixed}, guide=guide)
    assert isinstance(objective, ElboObjective) and list(objective.start()) == ["loc", "log_scale"]
    assert isinstance(objective.program, ElboProgram)
    assert (objective.program.particles, objective.program.fixed_seed) == (3, seed)


def test_an_objective_offers_what_it_can_and_nothing_else(built: Built) -> None:
    asked = (Watchable, ByRow, HasInformation)
    density = built({"type": "map"})
    assert isinstance(density, HasInformation)
    point = density.at(density.start())
    assert isinstance(point, TracedPoint)
    information = density.information(point).source
    marginal = built({"type": "marginal", "integrate": {"b": "laplace"}}, {"b": "laplace"})
    offered = [[isinstance(source, one) for one in asked] for source in (density, information, marginal)]
    assert offered == [[True, True, True], [True, False, False], [False, False, False]]
    assert not isinstance(marginal.at(marginal.start()), TracedPoint)


def test_an_elbo_without_a_guide_is_refused() -> None:
    with pytest.raises(ObjectiveRefused, match=r"needs a guide.*multivariate_normal"):
        program_of(Section(type="elbo"), source(), {"y": Y}, 0)


def test_a_guide_that_does_not_take_the_model_s_arguments_is_refused() -> None:
    with pytest.raises(ObjectiveRefused) as refused:
        program_of(Section(type="elbo"), source(lambda rows, more: None), {"y": Y}, 0)
    assert len(refused.value.mistakes) == 3 and "argument 'y': guide does not take it" in refused.value.mistakes[0]
