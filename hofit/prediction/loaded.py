"""New rows as the module's own ``load_data`` reads them, where it takes ``like``, the file whose levels count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.schema import Config
from ..errors import DataError
from ..model.arguments import call_load_data, to_tensors
from ..run.data import find_model
from .new_data import NewArguments


def loader_of(config: Config) -> Callable[..., Any] | None:
    """The ``load_data`` of the run's module, where it can be asked for other rows."""
    load_data = None if config.data.columns else find_model(config.model).load_data
    parameters = {} if load_data is None else inspect.signature(load_data).parameters
    takes_like = "path" in parameters and "like" in parameters and parameters["like"].default is None
    return load_data if takes_like else None


def loaded_arguments(load_data: Callable[..., Any], config: Config, own: Mapping[str, Any], path: Path) -> NewArguments:
    """What ``load_data(path, like=…)`` gives; its whole numbers are counts of levels, its longest tensors the rows.

    Raises: DataError where it cannot, with what it raised; ModelError.
    """
    assert config.data.path is not None
    options = {**config.data.options, "like": str(config.data.path)}
    values = to_tensors(call_load_data(load_data, options, path.resolve()), torch.device(config.device))
    counts = {name: value for name, value in values.items() if _is_count(value) and _is_count(own.get(name))}
    levels = [(own[name], value) for name, value in counts.items()]
    before, now = _rows({name: own[name] for name in values if name in own}), _rows(values)
    if now == 0:
        raise DataError(f"{path}: load_data makes no row of it: has each an empty cell?")
    return NewArguments(values, now, before, levels)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _rows(arguments: Mapping[str, Any]) -> int:
    lengths = [len(value) for value in arguments.values() if isinstance(value, Tensor) and value.dim() > 0]
    return max(lengths, default=0)
