"""Many data sets, one model and one config: fitted together where their shapes agree, else one by one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isclose
from typing import Any

import torch
from torch import Tensor

from ..config.source import Source
from ..errors import HofitError
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock, LoopEnd
from ..fitting.many import Minima, minimise
from ..fitting.result import FitResult
from ..fitting.state import LoopState, Snapshot
from ..linear.dense import Dense
from ..objective.stacked import Arguments, NotStacked, Stacked
from ..point import Params
from ..status import Status
from ..uncertainty.gaussian import Conditional, Gaussian
from ..verdict.checks import Check, Verdict
from ..verdict.judge import gradient_tolerance
from ..verdict.signs import Signs, curvature_scale
from .finish import result_of
from .fit import FitOptions, run_fit
from .prepare import prepared
from .session import Request, Session, parse
from .signals import interruption_noted

WORTH = 3
"""Data sets from which on it pays to compute them together."""

NUMBERS = 300
"""Unknowns of one fit at most: their Hessians are dense."""

SAME = 1e-9
"""How near the first data set's loss, relative, must be to that of its own fit."""


def run_many(
    source: Source, model: Callable[..., Any] | str | None, given: Sequence[Mapping[str, Any]]
) -> list[FitResult]:
    """A result for each data set, in order. Raises: HofitError for wrong input, with the data set's number."""
    found: dict[int, FitResult] = {}
    for group in _alike(given):
        if len(group) >= WORTH:
            with _named(group[0]):
                found.update(fitted_together(source, model, given, group))
    for number, arguments in enumerate(given):
        if number not in found:
            with _named(number):
                found[number] = run_fit(Request(source, model, arguments), FitOptions())
    return [found[number] for number in range(len(given))]


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Inside, wrong input is that of a data set."""
    try:
        yield
    except HofitError as error:
        raise type(error)(f"data set {number}: {error}") from error


def _alike(given: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The numbers of data sets that differ in the values of tensors alone, group by group."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for number, arguments in enumerate(given):
        groups[tuple(sorted((name, _kind(value)) for name, value in arguments.items()))].append(number)
    return list(groups.values())


def _kind(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)


def fitted_together(
    source: Source, model: Callable[..., Any] | str | None, given: Sequence[Mapping[str, Any]], group: Sequence[int]
) -> dict[int, FitResult]:
    """The results of data sets that are alike: of the first by a fit of its own, of others where the minimum is plain.

    Raises: HofitError for wrong input.
    """
    request = Request(source, model, given[group[0]])
    config, mistakes = parse(request)
    if config.starts > 1:  # each data set has its own best one
        return {}
    with interruption_noted() as interruption, prepared(request, config, mistakes) as session:
        loop = session.loop([], interruption, Clock(session.began), LoopState())
        end = loop.begin(session.start, session.given) or loop.go()
        first = result_of(session, end, interruption)
        found = {group[0]: first}
        stacked = session.objective.stacked()
        if first.ended is not Status.CONVERGED or stacked is None or stacked.all.size > NUMBERS:
            return found
        began = time.perf_counter()
        try:
            arguments = Arguments.of([session.arguments_of(given[number]) for number in group])
            theta, u = stacked.all.flatten(first.params).split([stacked.outer.size, stacked.inner.size])
            minima = minimise(stacked, arguments, theta, u, session.program.entries, session.objective.unit)
        except NotStacked:
            return found
        # The first is there to be held against its own fit.
        if not bool(minima.plain[0]) or not isclose(float(minima.loss[0]), first.loss, rel_tol=SAME, abs_tol=SAME):
            return found
        seconds = (time.perf_counter() - began) / len(group)
        for place, number in enumerate(group):
            if place > 0 and bool(minima.plain[place]):
                found[number] = _result(session, stacked, minima, arguments, place, seconds, interruption)
    return found


def _result(
    session: Session,
    stacked: Stacked,
    minima: Minima,
    arguments: Arguments,
    place: int,
    seconds: float,
    interruption: Interruption,
) -> FitResult:
    """What a fit of one data set returns, its minimum being known."""
    program, objective = session.program, session.objective
    theta, u = stacked.outer.unflatten(minima.theta[place]), stacked.inner.unflatten(minima.u[place])
    hessian, gradient = Dense(minima.hessian[place]), minima.gradient[place]
    norm, decrement = float(gradient.abs().max()), float(minima.decrement[place])
    tolerance = gradient_tolerance(objective, session.config.stop)
    checks = [
        Check("gradient", norm <= tolerance, norm, f"max-norm {norm:.3g}, tolerance {tolerance:.3g}"),
        Check("decrement", True, decrement, f"a Newton step lowers the loss by {decrement:.3g}"),
        Signs(hessian).check(),
    ]
    verdict = Verdict(Status.CONVERGED, norm, float(minima.loss[place]), checks=checks)
    state = LoopState(iteration=int(minima.iterations[place]), seconds=seconds)
    snapshot = Snapshot(theta, {}, state, {}, None, u)
    gaussian = _gaussian(stacked, minima, place, {**theta, **u})
    with program.arguments_replaced(arguments.one(place)):
        objective.resume_from(theta, u)
        objective.leaves.write({**theta, **u})
        end = LoopEnd(Status.CONVERGED, theta, verdict, [], snapshot)
        result = result_of(session, end, interruption, gaussian)
    result.total_seconds, result.data_sha256 = seconds, {}
    return result


def _gaussian(stacked: Stacked, minima: Minima, place: int, params: Params) -> Gaussian:
    hessian = Dense(minima.hessian[place])
    none = torch.zeros(hessian.size, dtype=torch.bool)
    inner = None
    if stacked.inner.names:
        inner = Conditional(stacked.inner, Dense(minima.inner[place]).factor(), minima.moves[place])
    flat = hessian.matrix.new_zeros(hessian.size, 0)
    return Gaussian(stacked.outer, params, hessian.factor(), none, none, none, flat, curvature_scale(hessian), inner)
