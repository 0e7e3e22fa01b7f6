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


COUNTS = (
    *("T_0", "T_max", "T_mult", "epochs", "step_size", "step_size_down", "step_size_up"),
    *("steps_per_epoch", "total_iters", "total_steps"),
)
NUMBERS = ("base_lr", "gamma", "max_lr")
"""Options that torch divides or multiplies by at some later step, without having looked at them."""


def schedule_options(name: str) -> tuple[OptionSpec, ...]:
    return signature_options(SCHEDULES[name])


def own_options(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What a config's ``schedule`` gives beside its name."""
    return {key: value for key, value in schedule.items() if key != "name"}


def schedule_mistakes(spec: OptimizerSpec, schedule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what is wrong) for a schedule of ``spec``'s learning rate."""
    if not spec.scheduled:
        return [("schedule", f"{spec.name} has no lr that a schedule could steer: leave it out")]
    name, own = schedule.get("name"), own_options(schedule)
    if not isinstance(name, str) or name not in SCHEDULES:
        return [("schedule.name", f"no schedule {name!r}{near_misses(str(name), SCHEDULES)}")]
    mistakes = option_mistakes(f"schedule {name}", schedule_options(name), own)
    wrong = {key for key, _ in mistakes}
    mistakes += [(key, text) for key, value in own.items() if key not in wrong and (text := _not_usable(key, value))]
    for key in ("gamma", "factor"):
        if is_number(own.get(key)) and not own[key] > 0:
            mistakes.append((key, f"must be positive, not {own[key]!r}: it multiplies the lr"))
    return [(f"schedule.{key}", text) for key, text in mistakes]


def _not_usable(key: str, value: object) -> str | None:
    """Why torch would fail with an option's value at some later step; None where it would not."""
    if key in NUMBERS and not is_number(value):
        return f"must be a number, not {value!r:.60}"
    if key in COUNTS and value is not None and not _is_count(value):
        return f"must be a whole number from 1 on, not {value!r:.60}"
    if key == "milestones" and not (isinstance(value, list) and all(map(_is_count, value))):
        return f"must be a list of iterations, not {value!r:.60}"
    return None


def _is_count(value: object) -> bool:
    return is_number(value) and value == int(value) >= 1  # type: ignore[call-overload]
