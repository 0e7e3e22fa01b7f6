"""What the registry knows of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from .base import Optimizer
from .options import OptionSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Own = TypeVar("Own", bound="DataclassInstance")


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer of the registry: its name, its options with defaults, and how to make one."""

    name: str
    summary: str
    options: tuple[OptionSpec, ...]
    build: Callable[[Mapping[str, Any], Mapping[str, Any] | None], Optimizer]
    """From the options and the schedule that a config gives."""
    scheduled: bool = False
    """Whether it has an ``lr`` that a ``schedule`` can steer."""
    fits_shape: Callable[[torch.Size], str | None] = field(default=lambda shape: None)
    """Why a parameter of this shape cannot be stepped; None if it can."""
    declared: type | None = None
    """The dataclass of the options of one of hofit's own."""

    @classmethod
    def own(cls, name: str, summary: str, options: type[Own], build: Callable[[Own], Optimizer]) -> OptimizerSpec:
        """One of hofit's own, made from its options, which ``option`` has declared."""
        listed = tuple(OptionSpec(one.name, one.default, one.metadata["help"]) for one in fields(options))
        return cls(name, summary, listed, lambda given, schedule: build(options(**given)), declared=options)
