"""From the config's section on the objective to an objective: each kind's line is in ``OBJECTIVES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.schema import Objective as Section
from ..model.arguments import check_signature
from ..model.elbo import AUTOGUIDES, ElboProgram
from ..model.module import ModelSource
from ..model.program import Program
from .at_mode import Approximation, laplace
from .base import Objective
from .density import DensityObjective
from .elbo import ElboObjective
from .leaves import Leaves
from .marginal import MarginalObjective
from .quadrature import DEFAULT_NODES, Quadrature

DEFAULT_PROBES = 32
"""Of a log determinant that is estimated."""


class ObjectiveRefused(Exception):
    """The model's module does not have what the objective needs; ``mistakes`` are sentences on the section."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("; ".join(self.mistakes))


def program_of(section: Section, source: ModelSource, arguments: Mapping[str, Any], seed: int) -> Program:
    """What is traced. Raises: ObjectiveRefused; ModelError where the module's guide is none."""
    return OBJECTIVES[section.type].program(section, source, arguments, seed)


def objective_of(section: Section, program: Program, integrated: Mapping[str, str]) -> Objective:
    """What is minimised, of a program that knows its sites. ``integrated``: latent → the method that integrates it."""
    return OBJECTIVES[section.type].objective(section, program, integrated)


def objective_of_piece(
    section: Section, program: Program, integrated: Mapping[str, str], local: Sequence[str]
) -> Objective:
    """What a piece of the data adds to the loss. ``local`` are the names in the rows that are shared out.

    Where these are not integrated out they are settled at their mode at every point: p(θ) = min_u f(u, θ), whose
    stationary points are those of f, and whose Hessian is the Schur complement of that of f.
    """
    if integrated or not local:
        return objective_of(section, program, integrated)
    counted = program.latents if section.type == "map_unconstrained" else ()
    objective = MarginalObjective(program, local, counted, lambda expansion: expansion.loss)
    objective.type, objective.reaches_for = section.type, "the mode of"
    return objective


def _of_the_model(section: Section, source: ModelSource, arguments: Mapping[str, Any], seed: int) -> Program:
    return Program(source.model, arguments, section.integrate)


def _of_model_and_guide(section: Section, source: ModelSource, arguments: Mapping[str, Any], seed: int) -> Program:
    guide = section.autoguide or source.guide
    if guide is None:
        listed = ", ".join(AUTOGUIDES)
        raise ObjectiveRefused([f"elbo needs a guide, and the model's module has none: set autoguide to {listed}"])
    wrong = [] if isinstance(guide, str) else check_signature(guide, "guide", arguments)
    if wrong:
        raise ObjectiveRefused(wrong)
    return ElboProgram(source.model, guide, arguments, section.particles or 1, seed if section.fixed_draws else None)


def _density(section: Section, program: Program, integrated: Mapping[str, str]) -> Objective:
    return DensityObjective(program, section.type)


def _marginal(section: Section, program: Program, integrated: Mapping[str, str]) -> Objective:
    unconstrained = program.latents if section.jacobian else None
    if not integrated:  # all that is integrated is discrete, and summed out inside the density
        return DensityObjective(program, section.type, jacobian=unconstrained)
    program.integrate(integrated)
    leaves = Leaves(program.leaves)
    approximation: Approximation = laplace
    if "aghq" in integrated.values():
        nodes, counted = section.nodes or DEFAULT_NODES, unconstrained or integrated
        approximation = Quadrature(program, leaves, integrated, nodes, counted)
    probes = (section.probes or DEFAULT_PROBES) if section.logdet == "stochastic" else None
    return MarginalObjective(program, list(integrated), unconstrained, approximation, leaves, section.structure, probes)


def _elbo(section: Section, program: Program, integrated: Mapping[str, str]) -> Objective:
    assert isinstance(program, ElboProgram)
    return ElboObjective(program)


@dataclass(frozen=True)
class Recipe:
    """How one kind of objective comes about: what it traces, and what it makes of that once its sites are known."""

    objective: Callable[[Section, Program, Mapping[str, str]], Objective]
    program: Callable[[Section, ModelSource, Mapping[str, Any], int], Program] = _of_the_model


OBJECTIVES: dict[str, Recipe] = {
    "map": Recipe(_density),
    "map_unconstrained": Recipe(_density),
    "marginal": Recipe(_marginal),
    "elbo": Recipe(_elbo, _of_model_and_guide),
}
"""The section's type → how it is built."""
