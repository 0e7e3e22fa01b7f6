"""The options that an optimizer or a schedule publishes, and what is wrong with those that a config gives."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ..patterns import near_misses

NOT_OFFERED = {
    "maximize": "hofit minimises; write the model's density with the other sign",
    "differentiable": "the loop does not differentiate through a step",
    "capturable": "it is for CUDA graphs",
}
"""Options of torch's optimizers that make no sense here, and why."""

Value = TypeVar("Value")

_NOT_OPTIONS = {"self", "params", "optimizer", "last_epoch", "verbose", "scale_fn"}


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class OptionSpec:
    """One option of an optimizer, as ``hofit optimizers NAME`` lists it."""

    name: str
    default: object
    help: str = ""


def option(default: Value, help: str, choices: tuple[str, ...] = ()) -> Value:
    """A field of the dataclass of one of hofit's own optimizers' options; ``choices`` are the words that it takes."""
    return field(default=default, metadata={"help": help, "choices": choices})


def signature_options(constructor: Callable[..., object]) -> tuple[OptionSpec, ...]:
    """What a constructor that was written elsewhere can be given."""
    parameters = inspect.signature(constructor).parameters.values()
    return tuple(
        OptionSpec(p.name, p.default if p.default is not p.empty else REQUIRED)
        for p in parameters
        if p.name not in _NOT_OPTIONS and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


HELP = re.compile(
    r"^(?: +(?P<google>\w+) *\([^\n]*?\): *|:param (?:\w+ )?(?P<sphinx>\w+): *)"
    r"(?P<text>.+?)(?=^ {0,4}\w+ *\(|^:|\n *\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
"""An argument in a docstring of torch's or of Pyro's, up to the next one."""

DEFAULT = re.compile(r"[\s(]*(?:optional[:;] *)?\bdefault: .*", re.IGNORECASE | re.DOTALL)
"""What a docstring says of a default: it is known from the signature."""


def documented(constructor: Callable[..., object]) -> dict[str, str]:
    """What the docstring of a constructor that was written elsewhere says of each option; none where it cannot be read.

    It takes longer than the signature, so nothing that a fit needs asks for it.
    """
    found = HELP.finditer(inspect.getdoc(constructor) or "")
    texts = {one["google"] or one["sphinx"]: DEFAULT.sub("", one["text"]) for one in found}
    return {name: " ".join(text.split()).rstrip(".") for name, text in texts.items()}


LEARNING_RATE = ("lr", "learning_rate", "step_size", "eta", "alpha")
"""What a learning rate is called elsewhere."""


def _instead(key: str, names: Mapping[str, OptionSpec]) -> str:
    """What to write in the place of an option that is none."""
    if key in LEARNING_RATE and "lr" in names:
        return '; did you mean "lr"?'
    if key in LEARNING_RATE:
        listed = ", ".join(names) or "none"
        return f": its steps have a length of their own, so leave it out; there are: {listed}"
    return near_misses(key, names)


def option_mistakes(owner: str, known: tuple[OptionSpec, ...], given: Mapping[str, object]) -> list[tuple[str, str]]:
    """(key, what is wrong) for every option that ``owner`` does not take, or needs and is not given."""
    names = {option.name: option for option in known}
    mistakes = []
    for key, value in given.items():
        if key in NOT_OFFERED and key not in names:
            mistakes.append((key, f"not offered: {NOT_OFFERED[key]}"))
        elif key not in names:
            mistakes.append((key, f"{owner} has no such option{_instead(key, names)}"))
        elif (wrong := _wrong_type(names[key].default, value)) is not None:
            mistakes.append((key, wrong))
    needed = [name for name, option in names.items() if option.default is REQUIRED and name not in given]
    return mistakes + [(name, f"{owner} needs it") for name in needed]


def _wrong_type(default: object, value: object) -> str | None:
    """Why ``value`` cannot stand where ``default`` stands; None if it can."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false, not {value!r}"
    if isinstance(default, (int, float)):
        return None if is_number(value) else f"must be a number, not {value!r}"
    if isinstance(default, tuple):
        numbers = value if isinstance(value, (list, tuple)) else ()
        if len(numbers) == len(default) and all(one is None or is_number(one) for one in numbers):
            return None
        return f"must be a list of {len(default)} numbers, not {value!r}"
    return None


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
