"""How a fit is cited, and how it is run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from ..record import CONFIG
from .names import visible
from .run import Run

PYRO = (
    "Bingham, E., Chen, J. P., Jankowiak, M., Obermeyer, F., Pradhan, N., Karaletsos, T., Singh, R., Szerlip, P., "
    "Horsfall, P. & Goodman, N. D. (2019). Pyro: Deep universal probabilistic programming. "
    "Journal of Machine Learning Research 20(28), 1–6."
)
TORCH = (
    "Paszke, A. et al. (2019). PyTorch: An imperative style, high-performance deep learning library. "
    "Advances in Neural Information Processing Systems 32."
)
LAPLACE = (
    "Tierney, L. & Kadane, J. B. (1986). Accurate approximations for posterior moments and marginal densities. "
    "Journal of the American Statistical Association 81(393), 82–86."
)
POOLING = (
    "Gelman, A. & Pardoe, I. (2006). Bayesian measures of explained variance and pooling in multilevel (hierarchical) "
    "models. Technometrics 48(2), 241–251."
)

METHODS = {
    "map": "by maximising the joint density of data and latents over constrained values",
    "map_unconstrained": "by maximising the joint density of data and latents in unconstrained space",
    "marginal": "by maximising the likelihood marginal over the integrated latents",
    "elbo": "by maximising the evidence lower bound",
}


def sentence_of(fit: Mapping[str, Any]) -> str:
    """A sentence for a methods section."""
    versions = fit.get("versions") or {}
    used = ", ".join(f"{name} {versions[key]}" for name, key in _WORKS if key in versions)
    method = METHODS.get(str(fit["objective"]), f"under the objective {fit['objective']}")
    status = f"The fit ended {str(fit['status']).replace('_', ' ')} after {fit['iterations']} iterations"
    gradient = fit["gradient_norm"]
    held = "" if gradient is None else f", where the largest derivative of the loss was {gradient:.1e}"
    own = versions.get("hofit")
    return f"Fitted with hofit{f' {own}' if own else ''}{f' ({used})' if used else ''} {method}. {status}{held}."


_WORKS = (("Pyro", "pyro-ppl"), ("PyTorch", "torch"))


def works_of(fit: Mapping[str, Any], config: str | None) -> list[str]:
    """What to cite with it."""
    own = (fit.get("versions") or {}).get("hofit")
    works = [f"hofit{f', version {own}' if own else ''}: MAP and empirical-Bayes fits of Pyro models.", PYRO, TORCH]
    if fit["objective"] == "marginal" and "laplace" in (config or ""):
        works.append(LAPLACE)
    if fit.get("shrinkage"):
        works.append(f"For the pooling factors: {POOLING}")
    return works


def commands_of(run: Run) -> str:
    """Commands that make the environment again and run the fit; names are quoted for a shell."""
    versions = (run.fit or {}).get("versions") or {}
    wanted = [
        shlex.quote(f"{name}=={str(versions[name]).partition('+')[0]}")
        for name in ("hofit", "torch", "pyro-ppl")
        if name in versions
    ]
    install = [f"pip install {' '.join(wanted)}"] if wanted else []
    config = shlex.quote(visible(str(run.path / CONFIG)))
    return "\n".join([*install, f"hofit fit --config {config} --run-dir {shlex.quote(visible(run.label) + '-again')}"])


def caution_of(run: Run) -> str:
    """What the commands need besides; what they cannot do."""
    try:
        named = yaml.safe_load(run.config or "").get("model")
    except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
        named = None
    if named is None:
        return (
            "The config names no model file: the model came from Python, so its function and arguments must be given "
            "again to hofit.fit with this config."
        )
    return "Model and data are read where the config says; their digests below tell whether they are the same."
