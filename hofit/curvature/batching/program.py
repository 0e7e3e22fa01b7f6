"""A loss as a program of few operations, each on many entries at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...point import Params
from .recording import Slot


@dataclass(frozen=True, eq=False)
class Part:
    """Entries of a buffer, flat: all of them, those from ``start`` to ``stop``, or those at ``index``."""

    buffer: int
    start: int = 0
    stop: int | None = None
    index: Tensor | None = None

    def read(self, buffers: Sequence[Tensor]) -> Tensor:
        whole = buffers[self.buffer]
        if self.index is not None:
            return whole.index_select(0, self.index)
        return whole if self.stop is None else whole[self.start : self.stop]


@dataclass(frozen=True, eq=False)
class Operand:
    """What an operation reads: parts one after the other, or a constant; ``order`` puts the entries as they are read.

    ``shape`` is what the flat entries are viewed as, where they are not left flat.
    """

    parts: tuple[Part, ...]
    constant: Tensor | None = None
    order: Tensor | None = None
    shape: tuple[int, ...] | None = None

    def read(self, buffers: Sequence[Tensor]) -> Tensor:
        if self.constant is not None:
            found = self.constant
        elif len(self.parts) == 1:
            found = self.parts[0].read(buffers)
        else:
            found = torch.cat([part.read(buffers) for part in self.parts])
        if self.order is not None:
            found = found.index_select(0, self.order)
        return found if self.shape is None else found.reshape(self.shape)


@dataclass(eq=False)
class Step:
    """One operation on the entries of ``operands``; it appends a flat buffer for each of its results.

    ``count``: of how many calls of a function that is not taken entry by entry, or 0. ``shared`` are the operands that
    those have in common. ``terms``: how many are summed, or 0, or −1 with ``segments`` saying into which of ``sums``.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Operand]
    constant: bool
    count: int = 0
    shared: tuple[bool, ...] = ()
    terms: int = 0
    segments: Tensor | None = None
    sums: int = 0
    batched: bool = field(default=True)
    """Whether torch can batch the function; found out at the first run."""

    def run(self, buffers: list[Tensor]) -> None:
        read = [operand.read(buffers) for operand in self.operands]
        if self.constant:
            read = [one.detach() for one in read]
        if self.segments is not None:
            buffers.append(read[0].new_zeros(self.sums).index_add(0, self.segments, read[0]))
        elif self.terms:
            buffers.append(read[0].reshape(self.terms, -1).sum(0))
        elif not self.count:
            buffers.append(self._called(read).reshape(-1))
        else:
            found = self._many(read)
            buffers.extend(one.reshape(-1) for one in (found if isinstance(found, (list, tuple)) else (found,)))

    def _called(self, read: Sequence[Tensor]) -> Any:
        args = _filled(self.args, read)
        return self.func(*args, **{key: _filled(one, read) for key, one in self.kwargs.items()})

    def _many(self, read: list[Tensor]) -> Any:
        if self.count == 1:
            return self._called(read)
        dims = tuple(None if shared else 0 for shared in self.shared)
        if self.batched:
            try:
                return torch.vmap(lambda *one: self._called(one), in_dims=dims)(*read)
            except RuntimeError:
                self.batched = False
        calls = [
            self._called([one if shared else one[k] for one, shared in zip(read, self.shared, strict=True)])
            for k in range(self.count)
        ]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls)
        return [torch.stack(results) for results in zip(*calls, strict=True)]


def _filled(template: Any, read: Sequence[Tensor]) -> Any:
    if isinstance(template, Slot):
        return read[template.number]
    if isinstance(template, (list, tuple)):
        items = [_filled(one, read) for one in template]
        return type(template)(*items) if hasattr(template, "_fields") else type(template)(items)
    return template


@dataclass(eq=False)
class Batch:
    """What was recorded as a function of leaves, by ``steps``; ``calls`` is how many operations there were.

    Buffer 0 are all leaves, flat, in the order of ``names``. ``results`` are read at the end, and ``decisions``, which
    were ``expected`` when it was recorded.
    """

    names: list[str]
    steps: list[Step]
    results: Operand
    decisions: Operand | None
    expected: Tensor
    calls: int

    def __call__(self, leaves: Params) -> tuple[Tensor, Tensor]:
        """The results (n,), and whether the numbers decide as they did (); else the results are something else's."""
        buffers = [torch.cat([leaves[name].reshape(-1) for name in self.names])]
        for step in self.steps:
            step.run(buffers)
        results = self.results.read(buffers)
        if self.decisions is None:
            return results, torch.ones((), dtype=torch.bool)
        return results, (self.decisions.read(buffers).bool() == self.expected).all()
