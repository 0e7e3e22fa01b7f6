"""hofit: MAP and empirical-Bayes fits of Pyro models, with optimizer mixes from YAML.

Names are resolved when they are first used: ``import hofit`` does not import torch.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

__all__ = ["Diagnosis", "FitResult", "diagnose", "draws", "errors", "fit", "optim", "resume"]

if TYPE_CHECKING:
    from . import errors, optim
    from .api import diagnose, fit, resume
    from .fitting.result import FitResult, draws
    from .uncertainty.diagnosis import Diagnosis

_HOME = {
    "fit": "api",
    "resume": "api",
    "diagnose": "api",
    "Diagnosis": "uncertainty.diagnosis",
    "FitResult": "fitting.result",
    "draws": "fitting.result",
    "errors": "errors",
    "optim": "optim",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'hofit' has no attribute {name!r}")
    module = import_module(f".{_HOME[name]}", __name__)
    return module if name in ("errors", "optim") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
