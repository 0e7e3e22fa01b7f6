"""The JSON Schema of configs with what every optimizer and every schedule takes, a model's own optimizers included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from ..config.json_schema import Schema, config_schema
from ..optim.options import REQUIRED, OptionSpec, documented
from ..optim.registry import registry
from ..optim.schedules import COUNTS, NUMBERS, SCHEDULES, schedule_options
from ..optim.spec import OptimizerSpec
from ..optim.torch_part import GRADIENT_OPTIMIZERS
from .data import find_model

NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 1}


def whole_schema(model: str | None = None) -> Schema:
    """Of a config, for one model where its reference is given: its module may add optimizers.

    Raises: ModelError, OptionError.
    """
    specs = registry(None if model is None else find_model(model).optimizers)
    whole = config_schema()
    entry = whole["$defs"]["OptimizerEntry"]
    properties = entry["properties"]
    about = properties["optimizer"]["description"]
    properties["optimizer"] = {**_names((s.name, s.summary) for s in specs.values()), "description": about}
    whole["$defs"]["Schedule"] = _schedule()
    none = {**properties["schedule"], "anyOf": [{"const": None}]}
    steered = {**none, "anyOf": [{"$ref": "#/$defs/Schedule"}, {"const": None}]}
    for known in (none, steered):
        known.pop("default", None)
    shared: Schema = {"params": {}, "optimizer": {}}
    entry["allOf"] = [
        _case("optimizer", name, {**shared, "schedule": steered if spec.scheduled else none}, _options(spec))
        for name, spec in specs.items()
    ]
    return whole


def _names(known: Iterable[tuple[str, str]]) -> Schema:
    return {"oneOf": [{"const": name, "description": summary} for name, summary in known]}


def _case(key: str, name: str, shared: Schema, options: Schema) -> Schema:
    """What else an object holds where a key has a name: these options and no other."""
    needed = [option for option, about in options.items() if about.pop("needed", False)]
    then = {"properties": {**shared, **options}, "required": needed, "additionalProperties": False}
    return {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then}


def _schedule() -> Schema:
    names = _names((name, f"torch.optim.lr_scheduler.{kind.__name__}") for name, kind in SCHEDULES.items())
    cases = []
    for name, kind in SCHEDULES.items():
        help = documented(kind)
        known = schedule_options(name)
        options = {one.name: _option(one, help.get(one.name, "")) | _of_schedule(one) for one in known}
        cases.append(_case("name", name, {"name": {}}, options))
    return {"type": "object", "properties": {"name": names}, "required": ["name"], "allOf": cases}


def _of_schedule(option: OptionSpec) -> Schema:
    """What an option of a schedule must be beside what its default says, as ``schedule_mistakes`` has it."""
    if option.name == "milestones":
        return {"type": "array", "items": COUNT}
    if option.name in COUNTS:
        return {"anyOf": [COUNT, {"const": None}]} if option.default is None else dict(COUNT)
    if option.name in ("gamma", "factor"):  # it multiplies the lr
        return {**NUMBER, "exclusiveMinimum": 0}
    return dict(NUMBER) if option.name in NUMBERS else {}


def _options(spec: OptimizerSpec) -> Schema:
    if spec.declared is not None:
        hints = get_type_hints(spec.declared)
        return {one.name: _own(one.metadata, hints[one.name], one.default) for one in fields(spec.declared)}
    help = documented(GRADIENT_OPTIMIZERS[spec.name]) if spec.name in GRADIENT_OPTIMIZERS else {}
    return {option.name: _option(option, help.get(option.name, option.help)) for option in spec.options}


def _own(about: Mapping[str, Any], hint: Any, default: object) -> Schema:
    """One of the options of hofit's own optimizers, by its type."""
    kind = {"enum": list(about["choices"])} if about["choices"] else TypeAdapter(hint).json_schema()
    return {**kind, "description": about["help"], "default": default}


def _option(option: OptionSpec, help: str) -> Schema:
    """An option of a library's, by its default."""
    about: Schema = {"description": help} if help else {}
    if option.default is REQUIRED:
        return {**about, "needed": True}
    return {**about, **_like(option.default), "default": option.default}


def _like(default: object) -> Schema:
    """What may stand where a default stands, as ``option_mistakes`` has it."""
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, (int, float)):
        return dict(NUMBER)
    if isinstance(default, tuple):
        size = len(default)
        return {"type": "array", "items": {"type": ["number", "null"]}, "minItems": size, "maxItems": size}
    return {}
