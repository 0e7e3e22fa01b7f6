"""A tape: the operations of torch that one evaluation has called, as a function of some tensors.

Operations that do not depend on these are constants; what nothing reads is left out. Derivatives are operations as all
others: the tape is recorded below autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakMethod, ref

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..internals import DispatchMode, memory_of, schema_of

SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default, torch.ops.aten.lift_fresh.default}
"""Give back what they are given."""

OF_SHAPE = {
    *(torch.ops.aten.ones_like.default, torch.ops.aten.zeros_like.default, torch.ops.aten.full_like.default),
    *(torch.ops.aten.new_zeros.default, torch.ops.aten.new_ones.default, torch.ops.aten.new_full.default),
}
"""Read no number of what they are given."""

ESCAPES = {"numpy", "__array__", "tolist", "__dlpack__", "data_ptr", "storage", "untyped_storage"}
"""Let numbers out of torch, which does not see what becomes of them."""

BY_VALUES = "what it computes depends on the values of the parameters"


class NotCaptured(Exception):
    """The function cannot be replayed; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Value:
    """A number of the tape stands where a tensor stood."""

    number: int


@dataclass(frozen=True)
class Step:
    """One operation: ``results`` are the numbers of the tensors it gives back, none where it writes in place.

    ``several``: it gives them back in a list or tuple, be it of one.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]
    writes: bool
    several: bool = False

    def reads(self) -> Iterator[int]:
        return _numbers((self.args, tuple(self.kwargs.values())))


@dataclass(frozen=True)
class Tape:
    """Inputs have the numbers 0, 1, …; ``outputs`` are numbers, or constants; ``size`` the mean size of results."""

    inputs: int
    steps: list[Step]
    outputs: list[Value | Tensor]
    size: float

    def filled(self, computed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All outputs, from those that are computed."""
        if len(computed) == len(self.outputs):
            return tuple(computed)
        found = iter(computed)
        return tuple(next(found) if isinstance(one, Value) else one for one in self.outputs)

    def function(self) -> Callable[..., tuple[Tensor, ...]]:
        """The outputs that are no constants as a function of Python, to be called with gradients off.

        Each tensor is let go after its last use.
        """
        names: dict[str, Any] = {"__name__": "tape"}

        def constant(value: Any) -> str:
            names[name := f"c{len(names)}"] = value
            return name

        def written(value: Any) -> str:
            if isinstance(value, Value):
                return f"v{value.number}"
            if value is None or isinstance(value, (bool, int)):
                return repr(value)
            if isinstance(value, (list, tuple)) and any(True for _ in _numbers(value)):
                return f"[{', '.join(map(written, value))}]"
            return constant(value)

        last = {number: k for k, step in enumerate(self.steps) for number in (*step.reads(), *step.results)}
        kept = {one.number for one in self.outputs if isinstance(one, Value)} | set(range(self.inputs))
        lines = [f"def run({', '.join(f'v{number}' for number in range(self.inputs))}):"]
        for k, step in enumerate(self.steps):
            keywords = (f"{key}={written(value)}" for key, value in step.kwargs.items())
            call = f"{constant(step.function)}({', '.join([*map(written, step.args), *keywords])})"
            targets = ", ".join(f"v{number}" for number in step.results) + ("," if step.several else "")
            lines.append(f"    {targets} = {call}" if step.results else f"    {call}")
            gone = [f"v{n}" for n in dict.fromkeys((*step.reads(), *step.results)) if last[n] == k and n not in kept]
            if gone:
                lines.append(f"    del {', '.join(gone)}")
        lines.append(f"    return ({''.join(f'{written(one)}, ' for one in self.outputs if isinstance(one, Value))})")
        exec("\n".join(lines), names)
        run: Callable[..., tuple[Tensor, ...]] = names["run"]
        return run


class Recorder(DispatchMode):
    """Use as a context around one evaluation; then ``finish``. What is computed inside is not changed by it.

    Args: inputs: the tensors that it is a function of, as the evaluation reads them.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._steps: list[Step] = []
        self._known: dict[int, tuple[ref[Tensor], int]] = {}
        self._made: dict[int, list[ref[Tensor]]] = {}
        """Memory that was made while recording: the constants that look at it."""
        self._count, self._entries, self._results = 0, 0, 0
        self._failure: str | None = None
        self._inputs = {memory_of(tensor) for tensor in inputs}
        self._given = len(inputs)
        self._escapes = _Escapes(WeakMethod(self._escaped))
        for tensor in inputs:
            self._name(tensor)

    def __enter__(self) -> Recorder:
        self._escapes.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._escapes.__exit__(*raised)  # type: ignore[no-untyped-call]

    def finish(self, outputs: Sequence[Tensor]) -> Tape:
        """What was recorded, as a function that gives these. Raises: NotCaptured."""
        if self._failure is not None:
            raise NotCaptured(self._failure)
        given = [self._value(tensor) for tensor in outputs]
        needed = {one.number for one in given if isinstance(one, Value)}
        steps: list[Step] = []
        for step in reversed(self._steps):
            if step.writes or needed.intersection(step.results):
                needed.update(step.reads())
                steps.append(step)
        return Tape(self._given, steps[::-1], given, self._entries / max(1, self._results))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        step = None
        with self._failing_well(func):
            step = self._before(func, args, kwargs)
        found = func(*args, **kwargs)
        with self._failing_well(func):
            if step is not None:
                self._recorded(step, found)
            else:
                self._constant(_tensors((args, kwargs)), _tensors(found))
        return found

    @contextmanager
    def _failing_well(self, func: Any) -> Iterator[None]:
        """Inside, what cannot be written down is no error of the evaluation's."""
        try:
            yield
        except NotCaptured as refusal:
            self._failure = self._failure or str(refusal)
        except Exception as error:
            self._failure = self._failure or f"{func.name()} cannot be written down ({error})"

    def _before(self, func: Any, args: Any, kwargs: Any) -> Step | None:
        """An operation that is about to be computed, as it will stand on the tape; None for a constant."""
        if self._failure is not None:
            return None
        depends = self._any_known((args, kwargs))
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotCaptured(f"it draws random numbers ({func.name()})")
        if depends and self._by_values(func, args):
            raise NotCaptured(f"{BY_VALUES} ({func.name()})")
        writes = schema_of(func).is_mutable
        if writes:
            self._before_writing(_written(func, args, kwargs), depends)
            depends = depends or self._any_known((args, kwargs))
        if not depends or (func in OF_SHAPE and self._known_number(args[0]) is not None):
            return None
        given = {key: self._value(value) for key, value in kwargs.items()}
        return Step(func, tuple(map(self._value, args)), given, (), writes)

    def _recorded(self, step: Step, found: Any) -> None:
        if step.function in SAME:
            self._known[id(found)] = (ref(found), step.args[0].number)
            return
        results = () if step.writes else tuple(self._name(tensor) for tensor in _tensors(found))
        several = isinstance(found, (list, tuple))
        self._steps.append(replace(step, results=results, writes=step.writes or not results, several=several))

    def _constant(self, given: list[Tensor], found: list[Tensor]) -> None:
        outside = {memory_of(one) for one in given} - self._made.keys()
        for tensor in found:
            if memory_of(tensor) not in outside:
                self._made.setdefault(memory_of(tensor), []).append(ref(tensor))

    def _any_known(self, value: Any) -> bool:
        return any(self._known_number(one) is not None for one in _tensors(value))

    def _escaped(self, name: str, tensor: Tensor) -> None:
        if self._failure is None and self._known_number(tensor) is not None:
            self._failure = f"{BY_VALUES} ({name})"

    def _by_values(self, func: Any, args: Sequence[Any]) -> bool:
        """Whether values of the inputs decide what is computed next, or what shape it has."""
        if func is torch.ops.aten.index.Tensor:
            indices = [one for one in _tensors(args[1]) if one.dtype in (torch.bool, torch.uint8)]
            return any(self._known_number(one) is not None for one in indices)
        return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags

    def _before_writing(self, targets: list[Tensor], depends: bool) -> None:
        """What is written to is on the tape from now on, copied as it is; memory from outside must not change."""
        for target in targets:
            if memory_of(target) in self._inputs:
                raise NotCaptured("it writes into its parameters")
            if self._known_number(target) is not None:
                continue
            looking = self._made.get(memory_of(target))
            if looking is None:
                raise NotCaptured("it writes into a tensor that outlives the evaluation")
            if depends:
                length = target.untyped_storage().nbytes() // target.element_size()
                with torch.no_grad():
                    whole = target.detach().as_strided((length,), (1,), 0).clone()
                copied = self._new_number()
                self._steps.append(Step(torch.ops.aten.clone.default, (whole,), {}, (copied,), False))
                for one in looking:
                    tensor = one()
                    if tensor is None or tensor.dtype != target.dtype:
                        continue
                    place = (tensor.size(), tensor.stride(), tensor.storage_offset())
                    args = (Value(copied), *(list(part) if isinstance(part, tuple) else part for part in place))
                    self._steps.append(Step(torch.ops.aten.as_strided.default, args, {}, (self._name(tensor),), False))
                looking.clear()

    def _new_number(self) -> int:
        self._count += 1
        return self._count - 1

    def _name(self, tensor: Tensor) -> int:
        number = self._new_number()
        self._known[id(tensor)] = (ref(tensor), number)
        self._entries += tensor.numel()
        self._results += 1
        return number

    def _known_number(self, tensor: Tensor) -> int | None:
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def _value(self, argument: Any) -> Any:
        """An argument as it stands on the tape."""
        if isinstance(argument, Tensor):
            number = self._known_number(argument)
            return argument.detach() if number is None else Value(number)
        if isinstance(argument, (list, tuple)):
            return type(argument)(map(self._value, argument)) if type(argument) in (list, tuple) else argument
        return argument


class _Escapes(TorchFunctionMode):
    """Tells of every tensor whose numbers leave torch."""

    def __init__(self, tell: WeakMethod[Callable[[str, Tensor], None]]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ESCAPES and isinstance(args[0], Tensor):
            tell = self._tell()
            if tell is not None:
                tell(func.__name__, args[0])
        return func(*args, **(kwargs or {}))


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes to."""
    found: list[Tensor] = []
    for k, argument in enumerate(schema_of(func).arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[k] if k < len(args) else kwargs.get(argument.name))
    return found


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for one in value.values() for tensor in _tensors(one)]
    return [tensor for one in value for tensor in _tensors(one)] if isinstance(value, (list, tuple)) else []


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, Value):
        yield value.number
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one)
