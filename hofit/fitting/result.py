"""What a fit returns: for notebooks, and for the files and the summary of the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..export.arviz import Labels, attributes, inference_data
from ..export.groups import groups_of
from ..model.program import Program
from ..point import Params, Site
from ..record import Derived, Estimate, Quantity, indices
from ..status import COMPLETE_AS_TOLD, SIGNALLED, Status
from ..uncertainty.delta import PLAIN, interval
from ..uncertainty.errors import Uncertainty
from ..verdict.checks import Check


@dataclass
class FitResult:
    """The end of a fit.

    ``params`` are unconstrained, ``values`` constrained; both hold every parameter and latent, fixed ones included.
    ``std_errors`` are on the constrained scale, ``lower`` and ``upper`` the ends of 95 % intervals, ``derived`` the
    values and errors of `pyro.deterministic` sites: by name, where the fit gives them, nan for an entry without one.
    ``facts`` is what this kind of objective alone has to say. ``unread`` tells which unconstrained numbers of a site
    its transform never reads, as above a triangle: they are no unknowns. ``seconds`` runs from the model's first trace
    to the verdict. ``estimated`` says that the loss of an iteration is an estimate, of a minibatch or of draws.
    ``signal`` is the number of what interrupted the fit, ``repeated`` see ``LoopState``.
    ``program_again`` gives the model with its data back, inside the surroundings that it was fitted in; ``labels`` what
    the rows of plates are called in the data, and ``in_pieces`` whether these were in pieces; ``unit`` is what one
    observation weighs in the loss, and ``starts`` says of each start, where there were several, how its fit ended.
    """

    ended: Status
    loss: float
    gradient_norm: float
    iterations: int
    seconds: float
    objective: str
    params: Params
    values: Params
    uncertainty: Uncertainty = field(default_factory=Uncertainty, repr=False)
    remarks: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    unread: Params = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    log_likelihood: float | None = None
    observations: int | None = None
    restricted: list[str] = field(default_factory=list)
    observed_sums: list[float] = field(default_factory=list, repr=False)
    estimated: bool = False
    signal: int | None = None
    repeated: int = 0
    unit: float = 1.0
    starts: list[dict[str, Any]] = field(default_factory=list, repr=False)
    run_dir: Path | None = None
    total_seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    model_sha256: dict[str, str] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)
    labels: Callable[[], Labels] = field(default=dict, repr=False, compare=False)
    in_pieces: bool = False
    program_again: Callable[[], AbstractContextManager[Program]] | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> str:
        return self.ended.word

    @property
    def std_errors(self) -> Params:
        return self.uncertainty.std_errors

    @property
    def lower(self) -> Params:
        return self.uncertainty.lower

    @property
    def upper(self) -> Params:
        return self.uncertainty.upper

    @property
    def derived(self) -> dict[str, tuple[Tensor, Tensor]]:
        return self.uncertainty.derived

    @property
    def quantities(self) -> list[Quantity]:
        """Standard deviations, correlations and intraclass correlations, where they are no parameters themselves."""
        return self.uncertainty.quantities

    def covariance(self, names: str | Sequence[str]) -> Tensor:
        """The covariance of some sites on the constrained scale, flat over their values in the order given.

        It is that of the Gaussian which ``draws`` draws from: of integrated latents it always holds the uncertainty of
        the other parameters too. Rows and columns without a standard error are nan. Shape (n, n).
        Raises: HofitError for an unknown name, and where there is no Gaussian.
        """
        return self.uncertainty.covariance([names] if isinstance(names, str) else list(names))

    def to_arviz(self, draws: int = 1000, seed: int = 0, predictive: bool = True) -> Any:
        """Draws from the Gaussian at the mode for ArviZ: an InferenceData, or a DataTree where ArviZ is 1 or later.

        Args:
            draws: how many; what ``hofit.draws`` gives for this ``seed``, in one chain.
            predictive: trace the model at each draw, too, for the groups log_likelihood (``az.loo``),
                posterior_predictive and observed_data, and for deterministic sites. The model is called twice a draw.
        Dimensions are called by their plates, and their rows by the levels of the column that they are numbered by,
        where one is called alike. Held sites are in constant_data.
        Raises: HofitError where there is no Gaussian, or no ArviZ (``pip install 'hofit[arviz]'``).
        """
        again = self.program_again if predictive else None
        with nullcontext() if again is None else again() as program:
            found = groups_of(self.uncertainty, self.sites, program, draws, seed)
        about = attributes(self.objective, self.status, seed, found.remarks)
        return inference_data(found.groups, about, self.labels())

    @property
    def converged(self) -> bool:
        return self.ended.converged

    @property
    def exit_code(self) -> int:
        if self.ended is Status.INTERRUPTED and self.signal is not None:
            return SIGNALLED + self.signal
        return self.ended.exit_code

    @property
    def complete_as_told(self) -> bool:
        """Whether this is a fit on minibatches that has run all the iterations that it was told to."""
        return self.estimated and self.ended is Status.MAX_ITERATIONS

    @property
    def remedy(self) -> str:
        return COMPLETE_AS_TOLD if self.complete_as_told else self.ended.remedy

    def estimates(self) -> list[dict[str, Any]]:
        """The rows of estimates.csv, as plain values by column: one a scalar."""
        return [dict(vars(row)) for row in self.estimate_rows()]

    def estimate_rows(self, without: Collection[str] = ()) -> list[Estimate]:
        """The rows of estimates.csv, one a scalar, ``without`` some sites."""
        rows = []
        for name, site in self.sites.items():
            if name in without:
                continue
            value, unconstrained = self.values[name], self.params[name]
            nothing = [None] * value.numel()
            leaves = unconstrained.reshape(-1).tolist() if value.shape == unconstrained.shape else nothing
            error, lower, upper = (
                list(map(_finite_or_none, bound[name].reshape(-1).tolist())) if name in bound else nothing
                for bound in (self.std_errors, self.lower, self.upper)
            )
            numbers = zip(indices(value.shape), value.reshape(-1).tolist(), error, leaves, lower, upper, strict=True)
            role, owner = site.role, self.owners.get(name)
            rows += [Estimate(name, i, role, number, e, leaf, owner, lo, up) for i, number, e, leaf, lo, up in numbers]
        return rows

    def derived_rows(self) -> list[Derived]:
        """The rows of derived.csv: one a scalar of a deterministic site."""
        rows = []
        for name, (value, error) in self.derived.items():
            columns = [one.reshape(-1).tolist() for one in (error, *interval(PLAIN, value.to(error), error))]
            numbers = zip(indices(value.shape), value.reshape(-1).tolist(), *columns, strict=True)
            rows += [Derived(name, i, float(number), *map(_finite_or_none, known)) for i, number, *known in numbers]
        return rows

    @property
    def aic(self) -> float | None:
        """2 k − 2 log L, k the numbers optimised less the flat directions; None without a likelihood or a minimum."""
        if self.log_likelihood is None or not self.converged:
            return None
        return 2.0 * self._optimised - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float | None:
        """k log n − 2 log L, n the ``observations``; None where there is but one."""
        if self.log_likelihood is None or not self.converged or self.observations is None or self.observations < 2:
            return None
        return self._optimised * math.log(self.observations) - 2.0 * self.log_likelihood

    @property
    def _optimised(self) -> int:
        """k. A direction along which the loss does not change is no parameter: a simplex of three numbers counts two.

        What is integrated out under a flat prior, ``restricted``, is one, as fixed effects by REML are to lme4.
        """
        free = [name for name, site in self.sites.items() if site.role in ("parameter", "latent")]
        numbers, gaussian = self._numbers([*free, *self.restricted]), self.uncertainty.gaussian
        if gaussian is None:
            return numbers
        unused = gaussian.outer.unflatten(gaussian.unused)
        lost = sum(
            int((mask & ~self.unread[n]).sum() if n in self.unread else mask.sum()) for n, mask in unused.items()
        )
        return numbers - gaussian.flat.shape[1] - lost

    def _numbers(self, names: Iterable[str]) -> int:
        """Unconstrained numbers of some sites, but for those that are never read."""
        sizes = {name: self.sites[name].shape.numel() for name in names}
        return sum(size - int(self.unread[n].sum() if n in self.unread else 0) for n, size in sizes.items())

    def fit_json(self) -> dict[str, Any]:
        """What fit.json holds."""
        return {
            "status": self.status,
            "converged": self.converged,
            "exit_code": self.exit_code,
            "complete_as_told": self.complete_as_told,
            "objective": self.objective,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "iterations": self.iterations,
            "evaluations": self.evaluations,
            "repeated_iterations": self.repeated,
            "seconds": self.seconds,
            "total_seconds": self.total_seconds,
            "parameters": self._numbers(n for n, site in self.sites.items() if site.role != "fixed"),
            "log_likelihood": self.log_likelihood,
            **self.facts,
            "log_evidence": self.uncertainty.log_evidence,
            "aic": self.aic,
            "bic": self.bic,
            "observations": self.observations,
            "quantities": [vars(one) for one in self.quantities],
            "restated": self.uncertainty.restated,
            "restricted": self.restricted,
            "observed_sums": self.observed_sums,
            "unit": self.unit,
            "constraints": {name: site.constraint for name, site in self.sites.items()},
            **({"starts": self.starts} if self.starts else {}),
            "shrinkage": {name: factor.tolist() for name, factor in self.uncertainty.shrinkage.items()},
            "checks": [asdict(check) for check in self.checks],
            "remarks": self.remarks,
            "remedy": self.remedy,
            "versions": self.versions,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
        }

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: all but the model, so that ``to_arviz`` gives its posterior alone."""
        return {**vars(self), "program_again": None, "labels": partial(dict, self.labels())}

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, what is to be said of it, and the estimates."""
        from ..report.notebook import html_of  # rich takes a while to import

        return html_of(self.fit_json(), self.estimate_rows())

    def __repr__(self) -> str:
        return (
            f"FitResult({self.status}, loss={self.loss:.10g}, gradient_norm={self.gradient_norm:.3g}, "
            f"iterations={self.iterations}, seconds={self.seconds:.3g})"
        )


def draws(result: FitResult, n: int, /, seed: int = 0) -> Params:
    """Draws from the Gaussian at the mode, mapped to the constrained scale: name → (n, *shape of the value).

    For a marginal θ ~ N(θ̂, V) and u | θ ~ N(û + Sᵀ(θ − θ̂), H_uu⁻¹), on the unconstrained scale. What has no standard
    error for want of curvature is drawn with one number of each flat direction held at its estimate; values on the edge
    of their support and fixed sites stand still. Torch's own random state is left alone.
    Raises: HofitError where there is no Gaussian.
    """
    return result.uncertainty.draws(n, seed)


def _finite_or_none(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
