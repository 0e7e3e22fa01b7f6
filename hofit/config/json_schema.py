"""The JSON Schema of configs, for editors: what the schema's models say, and what their validators do beside.

A rule of a validator that JSON Schema can express stands here once more, and tests hold the two to each other. It
cannot express that a regular expression compiles and does not take for ever, nor that a number is finite.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from ..patterns import LONGEST
from . import schema
from .schema import INNER_STRUCTURES, KEYS_OF, MANY, Config

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What yaml-language-server reads."""

PATTERN: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST}


def config_schema() -> Schema:
    """Of a whole config. What optimizers take is not said: ``OptimizerEntry`` in its definitions may have any keys."""
    whole = Config.model_json_schema()
    definitions = whole["$defs"]
    texts = _descriptions()
    for name, definition in [*definitions.items(), ("Config", whole)]:
        definition.pop("title", None)
        for key, value in definition["properties"].items():
            value.pop("title", None)
            value["description"] = texts[name][key]
            if "$ref" in value:  # a reference hides what stands beside it in this dialect
                definition["properties"][key] = {"allOf": [{"$ref": value["$ref"]}], "description": texts[name][key]}
    _column(definitions)
    _objective(whole, definitions["Objective"])
    _patterns(whole, definitions)
    whole["properties"]["capture"] = {**whole["properties"]["capture"], "enum": ["auto", "off", False]}
    return {"$schema": DIALECT, "title": "A config of hofit", **whole}


def _descriptions() -> dict[str, dict[str, str]]:
    """Class → field → the sentences below it in the source."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(schema)).body:
        if isinstance(node, ast.ClassDef):
            pairs = zip(node.body, node.body[1:], strict=False)
            found[node.name] = {
                field.target.id: " ".join(str(text.value.value).split())
                for field, text in pairs
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            }
    return found


def _column(definitions: Schema) -> None:
    """A column by its name alone; what goes with codes, and what without."""
    column = definitions["Column"]
    column["properties"]["column"]["anyOf"][1]["minItems"] = 1
    coded = _given("codes", {"not": {"enum": [False, ""]}})
    column["if"], column["then"] = coded, _absent("dtype")
    column["else"] = {"allOf": [_absent("levels"), _absent("order"), {"properties": {"column": {"type": "string"}}}]}
    columns = definitions["Data"]["properties"]["columns"]
    columns["additionalProperties"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Column"}]}


def _objective(whole: Schema, objective: Schema) -> None:
    """A type's name alone, where it needs no more; which keys belong to which type."""
    words = [kind for kind in KEYS_OF if kind != "marginal"]
    whole["properties"]["objective"] = {
        "anyOf": [{"enum": words}, {"$ref": "#/$defs/Objective"}],
        "description": whole["properties"]["objective"]["description"],
    }
    properties = objective["properties"]
    methods = properties["integrate"]["additionalProperties"]["enum"]
    properties["integrate"]["additionalProperties"] = {"anyOf": [{"enum": methods}, _structured(INNER_STRUCTURES)]}
    stochastic, aghq = _given("logdet", {"const": "stochastic"}), _by("aghq")
    of_types = [
        _of_type(kind, {"allOf": [_absent(key) for key in properties if key not in ("type", *keys)]})
        for kind, keys in KEYS_OF.items()
    ]
    marginal = {"if": _given("type", {"const": "marginal"}), "then": _given("integrate", {"minProperties": 1})}
    objective["allOf"] = [
        *of_types,
        {**marginal, "else": {"not": {"anyOf": [_by("laplace"), aghq]}}},
        {"anyOf": [_all_by(_plain_or(structure)) for structure in INNER_STRUCTURES]},
        {"if": aghq, "then": {"anyOf": [_all_by(_plain_or(one)) for one in INNER_STRUCTURES if one != "sparse"]}},
        {"anyOf": [_absent("nodes"), aghq]},
        {"anyOf": [_absent("probes"), stochastic]},
        {"if": stochastic, "then": {**_all_by(_plain_or(None)), "not": aghq}},
    ]


def _structured(structures: tuple[str, ...]) -> Schema:
    """A method with the structure of the Hessian; what is enumerated has none."""
    method = {"enum": ["laplace", "aghq", "enumerate"]}
    return {
        "type": "object",
        "properties": {"method": method, "structure": {"enum": [*structures, None]}},
        "required": ["method"],
        "additionalProperties": False,
        "if": {"properties": {"method": {"const": "enumerate"}}},
        "then": {"properties": {"structure": {"const": None}}},
    }


def _plain_or(structure: str | None) -> Schema:
    """A method without a structure, or with this one."""
    return {"anyOf": [{"type": "string"}, {"properties": {"structure": {"enum": [structure, None]}}}]}


def _all_by(what: Schema) -> Schema:
    """All that is integrated, if anything, is so."""
    return {"properties": {"integrate": {"additionalProperties": what}}}


def _by(method: str) -> Schema:
    """Something is integrated by a method."""
    mapping = {"type": "object", "properties": {"method": {"const": method}}, "required": ["method"]}
    return _given("integrate", {"not": {"additionalProperties": {"not": {"anyOf": [{"const": method}, mapping]}}}})


def _of_type(kind: str, then: Schema) -> Schema:
    """A rule for an objective of a type, of which the first is that of an objective without one."""
    default = kind == next(iter(KEYS_OF))
    type_is: Schema = {"properties": {"type": {"const": kind}}}
    return {"if": type_is if default else {**type_is, "required": ["type"]}, "then": then}


def _given(key: str, what: Schema) -> Schema:
    return {"properties": {key: what}, "required": [key]}


def _absent(key: str) -> Schema:
    """A key is left out, or says nothing."""
    return {"properties": {key: {"enum": [None, {}]}}}


def _patterns(whole: Schema, definitions: Schema) -> None:
    """Patterns are no empty words, and lists of them no empty lists."""
    several = {"type": "array", "items": PATTERN, "minItems": 1, "maxItems": MANY}
    definitions["OptimizerEntry"]["properties"]["params"].update({"anyOf": [PATTERN, several]})
    for properties, key in (
        (whole["properties"], "fixed"),
        (definitions["Init"]["properties"], "values"),
        (definitions["Objective"]["properties"], "integrate"),
    ):
        properties[key]["propertyNames"] = PATTERN
