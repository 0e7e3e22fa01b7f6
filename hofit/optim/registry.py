"""The optimizers there are, by name: hofit's own, torch's and Pyro's, and what the model adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.optim.multi import MultiOptimizer

from ..errors import OptionError
from . import gauss_newton, lbfgs, newton, newton_cg, trust_region
from .base import Optimizer
from .foreign import as_optimizer
from .options import option_mistakes, signature_options
from .schedules import schedule_mistakes
from .spec import OptimizerSpec
from .torch_part import gradient_specs

OWN = {
    "gauss_newton": gauss_newton.OPTIMIZER,
    "lbfgs": lbfgs.OPTIMIZER,
    "newton": newton.OPTIMIZER,
    "newton_cg": newton_cg.OPTIMIZER,
    "trust_region": trust_region.OPTIMIZER,
}


def registry(of_model: Mapping[str, object] | None = None) -> dict[str, OptimizerSpec]:
    """Every optimizer by name; ``of_model`` are those that the model's module adds.

    Raises: OptionError for one of the model's that is no ``MultiOptimizer``, or takes the name of another.
    """
    specs = {**gradient_specs(), **OWN}
    for name, constructor in (of_model or {}).items():
        if name in specs:
            raise OptionError(f"the model's optimizer {name!r} has the name of one of hofit's")
        foreign = isinstance(constructor, type) and not issubclass(constructor, MultiOptimizer)
        if foreign or not callable(constructor):
            raise OptionError(f"the model's optimizer {name!r} must be a subclass of pyro.optim.multi.MultiOptimizer")
        specs[name] = _foreign_spec(name, constructor)
    return dict(sorted(specs.items()))


def build(spec: OptimizerSpec, options: Mapping[str, Any], schedule: Mapping[str, Any] | None) -> Optimizer:
    """The optimizer with these options. Raises: OptionError, one line a mistake."""
    mistakes = mistakes_in(spec, options, schedule)
    if mistakes:
        raise OptionError("\n".join(f"{key}: {message}" for key, message in mistakes))
    return spec.build(options, schedule)


def mistakes_in(
    spec: OptimizerSpec, options: Mapping[str, Any], schedule: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """(key, what is wrong) for every option that the optimizer or the schedule does not take."""
    mistakes = option_mistakes(spec.name, spec.options, options)
    wrong = {key for key, _ in mistakes}
    of_schedule = [] if schedule is None else schedule_mistakes(spec, schedule)
    mistakes += of_schedule
    if any(key not in options for key in wrong):
        return mistakes  # something that is needed is missing: it cannot be built
    options = {key: value for key, value in options.items() if key not in wrong}
    try:
        spec.build(options, None if of_schedule else schedule)
    except Exception as error:  # whatever the library says of its own options
        text = str(error).strip().split("\n")[0]
        said = text.replace(" ", "_").lower()
        key = next((key for key in options if key.removesuffix("s") in said), "")
        if not key and "learning rate" in text.lower():
            key = "lr"
        mistakes.append((key, text or type(error).__name__))
    return mistakes


def _foreign_spec(name: str, constructor: Callable[..., object]) -> OptimizerSpec:
    return OptimizerSpec(
        name,
        f"the model module's own: {getattr(constructor, '__name__', type(constructor).__name__)}",
        signature_options(constructor),
        lambda options, schedule: as_optimizer(constructor(**options), name),
    )
