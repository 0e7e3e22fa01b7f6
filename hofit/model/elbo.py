"""The evidence lower bound of a model under a guide, as a program whose one sample site is a factor.

A call draws the latents from the guide, replays the model on them, and gives the mean of
log p(data, latents; parameters) − log q(latents; parameters) over the draws. Of the guide and the model, only parameter
sites are shown: so the bound is fitted as any model is that has parameters and no latent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, Unit
from pyro.infer import autoguide
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor
from torch.distributions import Beta, Dirichlet, FisherSnedecor, Gamma, StudentT, Wishart, constraints

from ..errors import ModelError
from ..internals import Subsample
from .evaluation import Evaluation
from .initial import initial_unconstrained
from .plates import full_plates, rows_drawn
from .program import Program
from .randomness import random_state_kept, set_seed
from .sites import SiteMessenger, Sites
from .supports import latent_transform

SETTLED_DRAWS = 100
"""Draws, at least, of what is said at the end of a fit: their mean has a tenth of one draw's standard error."""

SETTLED_SEED = 2**32 - 5
"""Theirs, which no fit is likely to have."""

REJECTING = (Beta, Dirichlet, FisherSnedecor, Gamma, StudentT, Wishart)
"""Torch draws these by rejection, so that with fixed random numbers a draw jumps as its parameters move."""


class AutoMultivariateNormal(autoguide.AutoMultivariateNormal):
    """Pyro's, with standard deviations in ``scale`` and the correlations' Cholesky factor in ``scale_tril``.

    Half of the unconstrained matrix behind Pyro's own constraint, unit triangular, has no effect.
    """

    scale_tril_constraint = constraints.corr_cholesky


AUTOGUIDES: dict[str, Callable[..., Any]] = {
    "normal": autoguide.AutoNormal,
    "multivariate_normal": AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
}


class ElboProgram(Program):
    """A model and its guide with their data. Use inside ``scope()``.

    ``guide`` is a callable, or the name of an autoguide. ``particles`` are the draws of one evaluation. ``fixed_seed``
    makes them the same at every evaluation; None: each goes on from the generators' state.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any] | str,
        arguments: Mapping[str, Any],
        particles: int = 1,
        fixed_seed: int | None = None,
    ) -> None:
        super().__init__(self._factor, arguments)
        self.target, self.guide = model, guide
        self.particles, self.fixed_seed = particles, fixed_seed
        self._ready = False
        self._start = ("median", 0.0)
        self._drawn: dict[str, tuple[int, int]] = {}

    def discover(self, strategy: str = "median", jitter: float = 0.0, values: Mapping[str, Any] | None = None) -> None:
        """As for every program; an autoguide's locations start where the latents would."""
        if not self._ready:  # outside of full plates: an autoguide takes their subsamples' sizes from the first trace
            self._start = (strategy, jitter)
            SiteMessenger().run_at_start(self.model, self.arguments)
            self._ready = True
        super().discover(strategy, jitter, values)
        if self.fixed_seed is not None and self.subsampled:
            plates = ", ".join(repr(name) for name in self.subsampled)
            raise ModelError(f"elbo: fixed_draws would draw the same rows of the plate {plates} at every iteration")

    def log_density(self, jacobian: Collection[str] = (), full: bool = False, validate: bool = False) -> Tensor:
        """The bound, shape (). ``full``: on full plates, and by many draws that stay the same."""
        with self.settled() if full and self.fixed_seed is None else nullcontext():
            return super().log_density(jacobian, full, validate)

    def bounds(self) -> Tensor:
        """The bound by each of many draws that no evaluation of the fit has seen; shape (draws,)."""
        with torch.no_grad(), full_plates(), self.settled(), self._draws():
            return torch.stack([sum(self._terms().values(), torch.zeros(())) for _ in range(self.particles)])

    def site_log_densities(self, full: bool = False) -> dict[str, float]:
        with torch.no_grad(), full_plates() if full else nullcontext(), self._draws():
            return {name: float(total) for name, total in self._terms().items()}

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Inside, draws are many and the same: not those of the fit."""
        kept = self.particles, self.fixed_seed
        self.particles, self.fixed_seed = max(self.particles, SETTLED_DRAWS), SETTLED_SEED
        try:
            yield
        finally:
            self.particles, self.fixed_seed = kept

    def find_subsampled(self) -> dict[str, tuple[int, int]]:
        self._drawn = {}
        with torch.no_grad():
            SiteMessenger().run_at_start(self.model, self.arguments)
        return self._drawn

    def _factor(self, **arguments: Any) -> None:
        """What stands for the model: parameter sites, and the bound."""
        if not self._ready:
            self._set_up()
        with self._draws():
            terms = [term for _ in range(self.particles) for term in self._terms().values()]
        pyro.factor("elbo", torch.stack(terms).sum() / self.particles)

    @contextmanager
    def _draws(self) -> Iterator[None]:
        if self.fixed_seed is None:
            yield
            return
        with random_state_kept():
            set_seed(self.fixed_seed)
            yield

    def _terms(self) -> dict[str, Tensor]:
        """One draw's parts of the bound, by site; shapes ()."""
        with poutine.block(expose_types=["param"]):
            guide = poutine.trace(self.guide).get_trace(**self.arguments)
            model = poutine.trace(poutine.replay(self.target, trace=guide)).get_trace(**self.arguments)
        drawn, sampled = _samples(guide), _samples(model)
        self._check(drawn, sampled)
        for name, site in {**drawn, **sampled}.items():
            if (drawn_rows := rows_drawn(site)) is not None:
                self._drawn[name] = drawn_rows
        density = Evaluation(Sites())  # of guide and model: only the density of a site is asked of it
        terms = {f"{name} (guide)": -density.site_log_density(site) for name, site in drawn.items()}
        return terms | {name: density.site_log_density(site) for name, site in sampled.items()}

    def _check(self, drawn: Mapping[str, Any], sampled: Mapping[str, Any]) -> None:
        """Every latent has its draw, and every draw can be differentiated."""
        latents = [name for name, site in sampled.items() if _is_latent(site)]
        _refuse_none(latents)
        missing = [name for name in latents if name not in drawn]
        if missing:
            raise ModelError(f"elbo: the guide does not sample {', '.join(map(repr, missing))}, which the model does")
        for name, site in drawn.items():
            fn = site["fn"]
            if isinstance(fn, Subsample) or (site["is_observed"] and not isinstance(fn, Unit)):
                continue
            if not fn.has_rsample:
                raise ModelError(
                    f"elbo: the guide's {name!r} ({type(fn).__name__}) is not reparameterised: its draws have no "
                    "derivative. Take a distribution with rsample, or sum a discrete latent out of the model"
                )
            if self.fixed_seed is not None and isinstance(_base(fn), REJECTING):
                raise ModelError(
                    f"elbo: the guide's {name!r} ({type(fn).__name__}) is drawn by rejection, so fixed draws jump as "
                    "its parameters move: take a transformed Normal, or fixed_draws: false"
                )
            if not (name in sampled or site["is_observed"] or site["infer"].get("is_auxiliary")):
                raise ModelError(
                    f"elbo: the guide samples {name!r}, which the model does not; "
                    'infer={"is_auxiliary": True} says that it is meant'
                )

    def _set_up(self) -> None:
        """Make the autoguide, and let it look at the model."""
        if not isinstance(self.guide, str):
            return
        kind = self.guide
        with poutine.block():
            with InitMessenger(self._start_of), poutine.block(hide_fn=_is_delta):
                sites = _samples(poutine.trace(self.target).get_trace(**self.arguments))
            _refuse_none([name for name, site in sites.items() if _is_latent(site)])
            latents_only = poutine.block(self.target, hide_fn=_is_delta)
            guide = AUTOGUIDES[kind](latents_only, init_loc_fn=self._start_of)
            guide(**self.arguments)
        self.guide = guide
        self._check_particles(kind)

    def _start_of(self, site: Any) -> Tensor:
        strategy, jitter = self._start
        fn = site["fn"]
        if getattr(fn, "has_enumerate_support", False) or getattr(fn.support, "is_discrete", False):
            raise ModelError(
                f"elbo: the latent {site['name']!r} is discrete ({type(fn).__name__}): an autoguide is continuous. Sum "
                "it out of the model (a mixture: dist.MixtureSameFamily) or observe it (obs=)"
            )
        transform = latent_transform(fn.support, site["name"])
        start = initial_unconstrained(site, transform, strategy)
        value: Tensor = transform(start + jitter * torch.randn_like(start) if jitter else start)
        return value

    def _check_particles(self, kind: str) -> None:
        """With fewer draws than a row of the guide has numbers, its scale can grow for ever past all of them."""
        if self.fixed_seed is None:
            return
        guide: Any = self.guide
        needed = 2
        if kind == "multivariate_normal":
            needed = guide.latent_dim + 1
        elif kind == "low_rank":
            needed = guide.rank + 2
        if self.particles < needed:
            raise ModelError(
                f"elbo: {self.particles} fixed draws do not bound the scale of this {kind} guide: "
                f"it needs particles: {needed} at least, and is accurate with many times that"
            )


def _samples(trace: Any) -> dict[str, Any]:
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def _is_latent(site: Any) -> bool:
    return not site["is_observed"] and not isinstance(site["fn"], (Subsample, Delta))


def _is_delta(message: Any) -> bool:
    return isinstance(message["fn"], Delta)


def _refuse_none(latents: list[str]) -> None:
    if not latents:
        raise ModelError("elbo: the model has no latent for a guide to sample; objective: map fits its parameters")


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
