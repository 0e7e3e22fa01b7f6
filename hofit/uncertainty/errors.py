"""How sure a fit is: standard errors, intervals, derived quantities and pooling, from the Gaussian at the mode.

What is reported is on the constrained scale, by the delta method: |slope| times the unconstrained error where a
transform is elementwise, else sqrt diag J C Jᵀ with its Jacobian and the site's own covariance. The ends of 95 %
intervals are the unconstrained ones, mapped; where a transform is not elementwise, they are symmetric on the scale on
which the entries are free (a simplex's on the logit's). There is a standard error only where a fit has converged and
its curvature is known and positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from ..coordinates import Coordinates
from ..errors import HofitError, ModelError
from ..model.program import Reading
from ..model.sites import InfeasibleError
from ..model.supports import value_and_slope
from ..objective.base import Objective
from ..point import Params, Site
from ..record import Quantity
from ..status import Status
from ..verdict.checks import Verdict
from ..verdict.edges import edge_entries
from .delta import NORMAL_975, delta_errors, interval_of_site
from .gaussian import Gaussian, gaussian_at
from .quantities import find_quantities

JACOBIAN_LIMIT = 1000
"""Numbers of a site at most whose transform is not elementwise: a matrix of 8 MB."""

DERIVED_LIMIT = 1000
"""Numbers of a deterministic site at most that have a standard error: each takes a gradient."""

DERIVED_WORK = 2**28
"""Numbers of all gradients of a deterministic site at most: some seconds."""


@dataclass
class Uncertainty:
    """What is known of a fit's errors. Names → tensors shaped as the values; nan where there is none.

    ``derived`` holds values and errors of `pyro.deterministic` sites, ``quantities`` the standard deviations and
    correlations of matrices, of which ``restated`` names those that are parameters, ``shrinkage`` the pooling factor
    of each integrated site, one a number of a row.
    """

    std_errors: Params = field(default_factory=dict)
    lower: Params = field(default_factory=dict)
    upper: Params = field(default_factory=dict)
    derived: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    quantities: list[Quantity] = field(default_factory=list)
    restated: list[str] = field(default_factory=list)
    shrinkage: Params = field(default_factory=dict)
    log_evidence: float | None = None
    reading: Reading | None = None
    remarks: list[str] = field(default_factory=list)
    gaussian: Gaussian | None = None
    transforms: dict[str, Transform] = field(default_factory=dict)
    fixed: Params = field(default_factory=dict)

    def covariance(self, names: Sequence[str]) -> Tensor:
        """See ``FitResult.covariance``."""
        gaussian = self._known()
        for name in names:
            if name not in self.transforms:
                known = ", ".join(self.transforms)
                raise HofitError(f"no covariance of {name!r}: there are {known}")
        places = torch.cat([gaussian.coordinates.numbers(name).reshape(-1) for name in names])
        parts = [_jacobian(self.transforms[name], gaussian.params[name]) for name in names]
        jacobian = torch.block_diag(*parts)
        covariance: Tensor = jacobian @ gaussian.block(places) @ jacobian.T
        rows = gaussian.on(places, jacobian)
        lost = gaussian.lost(rows) | ((covariance.diagonal() == 0) & rows.any(1))
        covariance[lost] = torch.nan
        covariance[:, lost] = torch.nan
        return covariance

    def draws(self, count: int, seed: int) -> Params:
        """See ``draws``."""
        drawn = self.constrained(self.unconstrained_draws(count, seed))
        return drawn | {name: value.expand(count, *value.shape) for name, value in self.fixed.items()}

    def unconstrained_draws(self, count: int, seed: int) -> Params:
        """Those that ``draws`` maps, of every site that is not fixed: name → (count, *shape of the leaf)."""
        return self._known().draw(count, torch.Generator().manual_seed(seed))

    def constrained(self, drawn: Params) -> Params:
        """Unconstrained draws on the constrained scale."""
        return {name: transform(drawn[name]).detach() for name, transform in self.transforms.items()}

    def _known(self) -> Gaussian:
        if self.gaussian is None:
            why = next((remark for remark in self.remarks if "standard errors" in remark), "the fit has not converged")
            raise HofitError(f"there is no Gaussian at the mode: {why}")
        if not self.gaussian.is_joint:
            names = ", ".join(self.gaussian.coordinates.names[len(self.gaussian.outer.names) :])
            raise HofitError(f"it is not known how {names} move with the others: there are too many derivatives")
        return self.gaussian


def gaussian_of(objective: Objective, status: Status, verdict: Verdict) -> tuple[Gaussian | None, list[str]]:
    """The Gaussian at the end of a fit, with remarks. To be asked before anything else is evaluated."""
    if not status.converged or verdict.point is None:
        return None, []
    if verdict.hessian is None:
        return None, ["standard errors: none, the curvature is not known"]
    point, held = verdict.point, verdict.held
    if held is None and status is Status.CONVERGED_ON_BOUNDARY:
        held = Coordinates.of(point.params).flatten(edge_entries(objective, point))
    gaussian, remarks = gaussian_at(objective, point, verdict.hessian, held)
    without = "" if gaussian is None else gaussian.without_curvature()
    if without and not any(
        "flat direction" in remark for remark in verdict.remarks
    ):  # where that is the status, its own remark says so
        remarks.append(f"standard errors: none for {without}: no positive curvature along a direction there")
    return gaussian, remarks


def find_uncertainty(
    objective: Objective,
    gaussian: Gaussian | None,
    remarks: Sequence[str],
    values: Params,
    verdict: Verdict,
    full: bool,
) -> Uncertainty:
    """All of it, with the leaves at the end of the fit.

    ``remarks`` are those on the Gaussian; ``full`` says that integrated latents' errors shall hold the others' too.
    Values that run to a limit have no error.
    """
    found, sites = Uncertainty(gaussian=gaussian, remarks=list(remarks)), objective.program.sites
    try:
        reading = objective.program.read()
    except (InfeasibleError, ModelError):
        return found
    found.reading, found.transforms = reading, reading.transforms
    found.fixed = {name: values[name] for name, site in sites.items() if site.role == "fixed"}
    if gaussian is not None:
        supports = {name: support for name, (_, support) in objective.program.supports.items()}
        _add_errors(found, gaussian if full else gaussian.conditional(), values, reading.moved, supports)
        for name, limiting in verdict.limiting.items():
            for known in (found.std_errors, found.lower, found.upper):
                if name in known:
                    known[name] = torch.where(limiting, torch.nan, known[name])
        if not bool(gaussian.held.any()):
            found.log_evidence = objective.log_evidence(verdict.loss, gaussian.factor, gaussian.outer.size)
        found.shrinkage = _shrinkage(gaussian, sites)
    _add_derived(found, gaussian, objective.program.leaves, reading)
    leaves = objective.program.leaves
    found.quantities, found.restated, more = find_quantities(objective.program, gaussian, reading, leaves, values)
    found.remarks += more
    return found


def _add_errors(
    found: Uncertainty,
    gaussian: Gaussian,
    values: Params,
    moved: Sequence[str],
    supports: Mapping[str, constraints.Constraint],
) -> None:
    variances = gaussian.variances()
    for name, transform in found.transforms.items():
        if name not in gaussian.params:
            continue
        if name in moved:
            found.remarks.append(f"standard errors: none for {name}: its support moves with other sites")
            continue
        unconstrained, places = gaussian.params[name], gaussian.coordinates.numbers(name)
        _, slope = value_and_slope(transform, unconstrained)
        if slope is not None:
            sd = variances[places].sqrt()
            found.std_errors[name] = slope.abs() * sd
            ends = [transform(unconstrained + sign * NORMAL_975 * sd).detach() for sign in (-1, 1)]
            found.lower[name], found.upper[name] = torch.minimum(*ends), torch.maximum(*ends)
        elif unconstrained.numel() <= JACOBIAN_LIMIT:
            jacobian = _jacobian(transform, unconstrained)
            flat = places.reshape(-1)
            total = ((jacobian @ gaussian.block(flat)) * jacobian).sum(1)
            lost = gaussian.lost(gaussian.on(flat, jacobian))
            total = torch.where(lost | ((total == 0) & jacobian.any(1)), torch.nan, total)
            error = found.std_errors[name] = total.clamp_min(0.0).sqrt().reshape(values[name].shape)
            known = interval_of_site(supports[name], values[name], error)
            if known is not None:
                found.lower[name], found.upper[name] = known
        else:
            found.remarks.append(
                f"standard errors: none for {name}: {unconstrained.numel()} numbers under one transform, "
                f"{JACOBIAN_LIMIT} at most are taken"
            )


def _jacobian(transform: Transform, unconstrained: Tensor) -> Tensor:
    """d value / d unconstrained. Shape (numbers of the value, numbers of the leaf)."""
    value, slope = value_and_slope(transform, unconstrained)
    if slope is not None:
        return torch.diag(slope.reshape(-1))
    found: Tensor = torch.autograd.functional.jacobian(transform, unconstrained)
    return found.reshape(value.numel(), unconstrained.numel())


def _add_derived(found: Uncertainty, gaussian: Gaussian | None, leaves: Params, reading: Reading) -> None:
    for name in reading.enumerated:
        found.remarks.append(f"derived: {name} has no one value, it depends on a discrete latent")
    for name, value in reading.deterministic.items():
        flat = value.reshape(-1)
        errors = torch.full(flat.shape, torch.nan)
        if gaussian is not None and gaussian.is_joint and value.is_floating_point():
            others = gaussian.coordinates.size
            if len(flat) > DERIVED_LIMIT or len(flat) * others > DERIVED_WORK:
                found.remarks.append(
                    f"standard errors: none for {name}: {len(flat)} numbers that depend on {others} others"
                )
            else:
                errors = delta_errors(gaussian, leaves, flat)
        found.derived[name] = value.detach(), errors.reshape(value.shape)


def _shrinkage(gaussian: Gaussian, sites: Mapping[str, Site]) -> Params:
    """``pooling`` of each integrated site."""
    if gaussian.inner is None:
        return {}
    coordinates, conditional = gaussian.inner.coordinates, gaussian.inner.factor.inverse_diagonal()
    variances = {name: conditional[coordinates.numbers(name)] for name in coordinates.names}
    return pooling(variances, gaussian.params, sites)


def pooling(variances: Params, modes: Params, sites: Mapping[str, Site]) -> Params:
    """The pooling factor of each site in plates: mean conditional variance / (that + variance of the modes).

    On the unconstrained scale, a number for each place of a row; 0 is no pooling, 1 complete.
    Source: Gelman & Pardoe (2006), Technometrics 48(2), eq. 3, the errors of the rows taken as uncorrelated.
    """
    found: Params = {}
    for name, conditional in variances.items():
        dims = tuple(plate.dim for plate in sites[name].plates)
        if not dims or sites[name].rows < 2:
            continue
        variance = conditional.mean(dims)
        found[name] = (variance / (variance + modes[name].var(dims, correction=0))).squeeze()
    return found
