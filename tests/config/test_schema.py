"""The objective's section: which keys belong to which type, what is said of the others, and what is written back."""

from __future__ import annotations

import pytest

from hofit.config.load import dump, validate
from hofit.config.source import parse_source

TYPES = "'map', 'map_unconstrained', 'marginal' or 'elbo'"


def checked(section: str) -> tuple[dict[str, object], list[str]]:
    """The section as it is written back, and what is wrong with it."""
    source = parse_source(f"objective: {section}\noptimizers: [{{params: a, optimizer: b}}]\n", "c.yaml")
    config, mistakes = validate(source)
    assert config is not None
    return dump(config)["objective"], [mistake.removeprefix("c.yaml:1: ") for mistake in mistakes]


REFUSED: list[tuple[str, str]] = [
    ("mapp", f"objective: must be one of {TYPES}, not 'mapp'"),
    ("{type: null}", f"objective.type: must be one of {TYPES}, not None"),
    ("{jacobian: true}", "objective: jacobian: no key of the objective 'map'"),
    (
        "{type: map, jacobian: false, particles: 3, nodes: 2}",
        "objective: nodes, jacobian, particles: no key of the objective 'map'",
    ),
    ("{type: elbo, integrate: {b: enumerate}}", "objective: integrate: no key of the objective 'elbo'"),
    ("{type: elbo, guide: 3}", 'objective.guide: unknown key; did you mean "autoguide" or "logdet"?'),
    (
        "{integrate: {b: laplace}}",
        "objective: 'map' takes `enumerate` only; laplace and aghq need type: marginal",
    ),
    (
        "{type: marginal, integrate: {}}",
        'objective: a marginal objective needs integrate: {"pattern": laplace | aghq | enumerate}',
    ),
    (
        "{type: marginal, integrate: {b: laplce}}",
        "objective.integrate.b: must be one of 'laplace', 'aghq' or 'enumerate', not 'laplce'",
    ),
    (
        "{type: marginal, integrate: {b: {method: laplace, structure: dens}}}",
        "objective: integrate: b: structure must be one of auto, diagonal, rows, arrowhead, sparse, dense, not 'dens'",
    ),
    (
        "{type: marginal, integrate: {b: {method: laplace, structure: dense}, c: {method: aghq, structure: rows}}}",
        "objective: integrate: one structure for all that is integrated, for their Hessian is one",
    ),
    (
        "{type: marginal, integrate: {b: {method: laplace, structure: sparse}, c: aghq}}",
        "objective: integrate: aghq takes rows that are independent: structure sparse goes with laplace",
    ),
    (
        "{type: marginal, integrate: {b: laplace}, nodes: 5}",
        "objective: nodes: nothing is integrated by aghq",
    ),
    (
        "{type: marginal, integrate: {b: aghq}, logdet: stochastic}",
        "objective: logdet: stochastic goes with laplace only: aghq takes rows one by one",
    ),
    (
        "{type: marginal, integrate: {b: {method: laplace, structure: dense}}, logdet: stochastic}",
        "objective: logdet: stochastic takes the pattern as it is: leave structure out",
    ),
    (
        "{type: marginal, integrate: {b: laplace}, logdet: exact, probes: 8}",
        "objective: probes: they belong to logdet: stochastic",
    ),
]


@pytest.mark.parametrize(("section", "text"), REFUSED)
def test_what_an_objective_does_not_take_is_said_in_one_sentence(section: str, text: str) -> None:
    assert checked(section) == ({"type": "map"}, [text])


TAKEN: list[tuple[str, dict[str, object]]] = [
    ("{}", {"type": "map"}),
    ("{type: map, jacobian: null, nodes: null, integrate: {}}", {"type": "map"}),
    ("{integrate: {z: enumerate}}", {"type": "map", "integrate": {"z": "enumerate"}}),
    (
        "{type: marginal, integrate: {b: {method: laplace, structure: dense}, c: laplace, d: {method: laplace}}}",
        {
            "type": "marginal",
            "integrate": {"b": {"method": "laplace", "structure": "dense"}, "c": "laplace", "d": "laplace"},
        },
    ),
    (
        "{type: marginal, integrate: {b: aghq}, nodes: 5.0, uncertainty: full}",
        {"type": "marginal", "integrate": {"b": "aghq"}, "nodes": 5, "uncertainty": "full"},
    ),
    (
        "{type: marginal, integrate: {b: laplace}, logdet: stochastic, probes: 8}",
        {"type": "marginal", "integrate": {"b": "laplace"}, "logdet": "stochastic", "probes": 8},
    ),
    ("{type: elbo, fixed_draws: false}", {"type": "elbo", "fixed_draws": False}),
]


@pytest.mark.parametrize(("section", "written"), TAKEN)
def test_only_what_was_given_is_written_back(section: str, written: dict[str, object]) -> None:
    assert checked(section) == (written, [])
