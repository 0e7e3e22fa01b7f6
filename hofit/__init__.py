"""hofit: MAP and empirical-Bayes fits of Pyro models, with optimizer mixes from YAML.

Fits: ``fit``, ``resume``, ``compare``, ``diagnose``, ``profile``, ``bootstrap``, ``draws``, and what they return or
raise. For models: ``distributions.GMRF``, a Gaussian by its sparse precision; ``linalg``, such precisions and their log
determinant.

Names are resolved when they are first used: ``import hofit`` does not import torch.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

__all__ = [
    "Comparison",
    "Diagnosis",
    "FitResult",
    "bootstrap",
    "compare",
    "diagnose",
    "distributions",
    "draws",
    "errors",
    "fit",
    "fit_many",
    "linalg",
    "optim",
    "profile",
    "resume",
]

if TYPE_CHECKING:
    from . import distributions, errors, linalg, optim
    from .api import bootstrap, compare, diagnose, fit, fit_many, profile, resume
    from .comparison.compare import Comparison
    from .fitting.result import FitResult, draws
    from .uncertainty.diagnosis import Diagnosis

_HOME = {
    "fit": "api",
    "fit_many": "api",
    "resume": "api",
    "compare": "api",
    "Comparison": "comparison.compare",
    "diagnose": "api",
    "profile": "api",
    "bootstrap": "api",
    "Diagnosis": "uncertainty.diagnosis",
    "FitResult": "fitting.result",
    "draws": "fitting.result",
    "distributions": "distributions",
    "errors": "errors",
    "linalg": "linalg",
    "optim": "optim",
}

_MODULES = ("distributions", "errors", "linalg", "optim")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'hofit' has no attribute {name!r}")
    module = import_module(f".{_HOME[name]}", __name__)
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
