"""The optimizers and schedules there are, by name, with their published options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.dct_adam import DCTAdam
from pyro.optim.multi import MultiOptimizer
from torch.optim import lr_scheduler

from ..curvature.choice import STRUCTURES
from ..errors import OptionError
from ..patterns import near_misses
from .base import Optimizer, OptimizerSpec, OptionSpec
from .foreign import as_optimizer
from .gauss_newton import GaussNewton
from .lbfgs import LBFGS
from .newton import Newton
from .newton_cg import PRECONDITIONERS, NewtonCG
from .torch_part import TorchOptimizer
from .trust_region import TrustRegion

GRADIENT_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adagrad_rmsprop": AdagradRMSProp,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "asgd": torch.optim.ASGD,
    "clipped_adam": ClippedAdam,
    "dct_adam": DCTAdam,
    "muon": torch.optim.Muon,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
    "sgd": torch.optim.SGD,
}

SCHEDULES: dict[str, type[Any]] = {
    "constant": lr_scheduler.ConstantLR,
    "cosine_annealing": lr_scheduler.CosineAnnealingLR,
    "cosine_annealing_warm_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "cyclic": lr_scheduler.CyclicLR,
    "exponential": lr_scheduler.ExponentialLR,
    "linear": lr_scheduler.LinearLR,
    "multi_step": lr_scheduler.MultiStepLR,
    "one_cycle": lr_scheduler.OneCycleLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "reduce_on_plateau": lr_scheduler.ReduceLROnPlateau,
    "step": lr_scheduler.StepLR,
}

NOT_OFFERED = {
    "maximize": "hofit minimises; write the model's density with the other sign",
    "differentiable": "the loop does not differentiate through a step",
    "capturable": "it is for CUDA graphs",
}
"""Options of torch's optimizers that make no sense here, and why."""

_NOT_OPTIONS = {"self", "params", "optimizer", "last_epoch", "verbose", "scale_fn"}

SUMMARIES = {
    "muon": "torch.optim.Muon (matrices only)",
    "adagrad_rmsprop": "pyro.optim.AdagradRMSProp",
    "clipped_adam": "pyro.optim.ClippedAdam",
    "dct_adam": "pyro.optim.DCTAdam",
}


def registry(of_model: Mapping[str, Any] | None = None) -> dict[str, OptimizerSpec]:
    """Every optimizer by name; ``of_model`` are those that the model's module adds.

    Raises: OptionError for one of the model's that is no ``MultiOptimizer``, or takes the name of another.
    """
    specs = dict(_gradient_specs())
    specs["newton"] = OptimizerSpec(
        "newton",
        "Newton steps on independent rows, inside a fixed trust radius, or each row in one of its own",
        (
            OptionSpec("trust_radius", None, "a positive number, or pattern: number; infinite when left out"),
            OptionSpec("adaptive", False, "whether each row's radius follows how its steps turn out"),
        ),
        lambda options: Newton(options.get("trust_radius"), options.get("adaptive", False)),
    )
    specs["trust_region"] = OptimizerSpec(
        "trust_region",
        "Newton steps over all parameters of the entry jointly, inside a trust region",
        (
            OptionSpec("structure", "auto", f"of the Hessian: {', '.join(STRUCTURES)}"),
            OptionSpec("initial_radius", None, "a positive number; found from the first step when left out"),
        ),
        lambda options: TrustRegion(**options),
    )
    specs["lbfgs"] = OptimizerSpec(
        "lbfgs",
        "torch.optim.LBFGS with its strong-Wolfe line search, made safe against losses that are not finite",
        (OptionSpec("history_size", 20, "pairs of steps and gradients that are remembered"),),
        lambda options: LBFGS(**options),
    )
    specs["newton_cg"] = OptimizerSpec(
        "newton_cg",
        "Newton steps by conjugate gradients inside a trust region: products with the Hessian only",
        (
            OptionSpec("preconditioner", "auto", f"blocks of the rows of plates: {', '.join(PRECONDITIONERS)}"),
            OptionSpec("initial_radius", None, "a positive number; found from the first step when left out"),
        ),
        lambda options: NewtonCG(**options),
    )
    specs["gauss_newton"] = OptimizerSpec(
        "gauss_newton",
        "Gauss–Newton steps (Levenberg–Marquardt), or the expected information, inside a trust region",
        specs["trust_region"].options,
        lambda options: GaussNewton(**options),
    )
    for name, constructor in (of_model or {}).items():
        if name in specs:
            raise OptionError(f"the model's optimizer {name!r} has the name of one of hofit's")
        is_class = isinstance(constructor, type)
        if not callable(constructor) or (is_class and not issubclass(constructor, MultiOptimizer)):
            raise OptionError(f"the model's optimizer {name!r} must be a subclass of pyro.optim.multi.MultiOptimizer")
        specs[name] = _foreign_spec(name, constructor)
    return dict(sorted(specs.items()))


def build(spec: OptimizerSpec, options: Mapping[str, Any], schedule: Mapping[str, Any] | None) -> Optimizer:
    """The optimizer with these options. Raises: OptionError, one line a mistake."""
    mistakes = mistakes_in(spec, options, schedule)
    if mistakes:
        raise OptionError("\n".join(f"{key}: {message}" for key, message in mistakes))
    return _build(spec, options, schedule)


def mistakes_in(
    spec: OptimizerSpec, options: Mapping[str, Any], schedule: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """(key, what is wrong) for every option that the optimizer or the schedule does not take."""
    mistakes = _option_mistakes(spec.name, spec.options, options)
    if schedule is not None:
        wrong = _schedule_mistakes(spec, schedule)
        mistakes += [(f"schedule.{key}" if key else "schedule", text) for key, text in wrong]
    wrong_keys = {key for key, _ in mistakes}
    if any(key not in options for key in wrong_keys if not key.startswith("schedule")):
        return mistakes  # something that is needed is missing: it cannot be built
    options = {key: value for key, value in options.items() if key not in wrong_keys}
    if any(key.startswith("schedule") for key in wrong_keys):
        schedule = None
    try:
        optimizer = _build(spec, options, schedule)
        if isinstance(optimizer, TorchOptimizer):
            _rehearse(optimizer)
    except Exception as error:  # whatever the library says of its own options
        text = str(error).strip().split("\n")[0]
        said = text.replace(" ", "_").lower()
        key = next((key for key in options if key.removesuffix("s") in said), "")
        if not key and "learning rate" in text.lower():
            key = "lr"
        mistakes.append((key, text or type(error).__name__))
    return mistakes


def _build(spec: OptimizerSpec, options: Mapping[str, Any], schedule: Mapping[str, Any] | None) -> Optimizer:
    if schedule is None:
        return spec.build(options)
    own = {key: value for key, value in schedule.items() if key != "name"}
    return spec.build({**options, "schedule": (SCHEDULES[schedule["name"]], own)})


def schedule_options(name: str) -> tuple[OptionSpec, ...]:
    return _signature_options(SCHEDULES[name])


@cache  # the signatures of sixteen classes take as long to read as a small model does to be traced twice
def _gradient_specs() -> Mapping[str, OptimizerSpec]:
    return {name: _gradient_spec(name, kind) for name, kind in GRADIENT_OPTIMIZERS.items()}


def _gradient_spec(name: str, kind: type[torch.optim.Optimizer]) -> OptimizerSpec:
    options = tuple(option for option in _signature_options(kind) if option.name not in NOT_OFFERED)

    def make(given: Mapping[str, Any]) -> Optimizer:
        own = {key: value for key, value in given.items() if key != "schedule"}
        return TorchOptimizer(kind, _as_tuples(own), given.get("schedule"), name)

    return OptimizerSpec(
        name,
        SUMMARIES.get(name, f"torch.optim.{kind.__name__}"),
        options,
        make,
        scheduled=any(option.name == "lr" for option in options),
        fits_shape=_only_matrices if name == "muon" else _any_shape,
    )


def _foreign_spec(name: str, constructor: Callable[..., Any]) -> OptimizerSpec:
    return OptimizerSpec(
        name,
        f"the model module's own: {getattr(constructor, '__name__', type(constructor).__name__)}",
        _signature_options(constructor),
        lambda options: as_optimizer(constructor(**options), name),
    )


def _any_shape(shape: torch.Size) -> str | None:
    return None


def _only_matrices(shape: torch.Size) -> str | None:
    return None if len(shape) == 2 else f"muon steps on matrices only, and this has shape {tuple(shape)}"


def _signature_options(constructor: Callable[..., Any]) -> tuple[OptionSpec, ...]:
    parameters = inspect.signature(constructor).parameters.values()
    return tuple(
        OptionSpec(p.name, p.default if p.default is not p.empty else REQUIRED)
        for p in parameters
        if p.name not in _NOT_OPTIONS and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


def _option_mistakes(owner: str, known: tuple[OptionSpec, ...], given: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {option.name: option for option in known}
    mistakes = []
    for key, value in given.items():
        if key in NOT_OFFERED and key not in names:
            mistakes.append((key, f"not offered: {NOT_OFFERED[key]}"))
        elif key not in names:
            mistakes.append((key, f"{owner} has no such option{near_misses(key, names)}"))
        elif (wrong := _wrong_type(names[key].default, value)) is not None:
            mistakes.append((key, wrong))
    for option in known:
        if option.default is REQUIRED and option.name not in given:
            mistakes.append((option.name, f"{owner} needs it"))
    return mistakes


def _wrong_type(default: Any, value: Any) -> str | None:
    """Why ``value`` cannot stand where ``default`` stands; None if it can."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false, not {value!r}"
    if isinstance(default, (int, float)):
        return None if _is_number(value) else f"must be a number, not {value!r}"
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)) and len(value) == len(default) and all(map(_is_number_or_none, value)):
            return None
        return f"must be a list of {len(default)} numbers, not {value!r}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _schedule_mistakes(spec: OptimizerSpec, schedule: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not spec.scheduled:
        return [("", f"{spec.name} has no lr that a schedule could steer")]
    name = schedule.get("name")
    if not isinstance(name, str) or name not in SCHEDULES:
        return [("name", f"no schedule {name!r}{near_misses(str(name), SCHEDULES)}")]
    own = {key: value for key, value in schedule.items() if key != "name"}
    mistakes = _option_mistakes(f"schedule {name}", schedule_options(name), own)
    for key in ("gamma", "factor"):
        if _is_number(own.get(key)) and not own[key] > 0:
            mistakes.append((key, f"must be positive, not {own[key]!r}: it multiplies the lr"))
    return mistakes


def _rehearse(optimizer: TorchOptimizer) -> None:
    """One step on a small matrix: torch checks some options only then."""
    probe = torch.nn.Parameter(torch.ones(2, 2))
    inner = optimizer.constructor([probe], **optimizer.options)
    if optimizer.schedule is not None:
        kind, options = optimizer.schedule
        kind(inner, **options)
    probe.grad = torch.ones(2, 2)
    inner.step()


def _as_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
