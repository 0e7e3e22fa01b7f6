"""The schedules of a learning rate: torch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import lr_scheduler

from ..patterns import near_misses
from .options import OptionSpec, is_number, option_mistakes, signature_options
from .spec import OptimizerSpec

SCHEDULES: dict[str, type[lr_scheduler.LRScheduler]] = {
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


def schedule_options(name: str) -> tuple[OptionSpec, ...]:
    return signature_options(SCHEDULES[name])


def own_options(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What a config's ``schedule`` gives beside its name."""
    return {key: value for key, value in schedule.items() if key != "name"}


def schedule_mistakes(spec: OptimizerSpec, schedule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what is wrong) for a schedule of ``spec``'s learning rate."""
    if not spec.scheduled:
        return [("schedule", f"{spec.name} has no lr that a schedule could steer")]
    name, own = schedule.get("name"), own_options(schedule)
    if not isinstance(name, str) or name not in SCHEDULES:
        return [("schedule.name", f"no schedule {name!r}{near_misses(str(name), SCHEDULES)}")]
    mistakes = option_mistakes(f"schedule {name}", schedule_options(name), own)
    for key in ("gamma", "factor"):
        if is_number(own.get(key)) and not own[key] > 0:
            mistakes.append((key, f"must be positive, not {own[key]!r}: it multiplies the lr"))
    return [(f"schedule.{key}", text) for key, text in mistakes]
