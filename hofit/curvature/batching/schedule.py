"""From a recording to a program: operations of one kind that do not wait for each other become one.

The kind to go next is, of those that are ready, the one whose operations stand earliest on average: a chain runs ahead
to its end, and what is made of its links is then computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .program import Batch, Operand, Part, Step
from .recording import Call, Recording, Slot

Numbers = npt.NDArray[np.int64]

CONSTANT = -2
"""The buffer of what is no result of any operation."""


@dataclass(eq=False)
class _Task:
    """A call that is needed, with its operands as numbers. ``kind`` is equal for those that may be one operation."""

    call: Call
    operands: list[Numbers]
    kind: Any
    waits: int = 0
    feeds: list[int] = field(default_factory=list)
    depth: int = 0


def scheduled(recording: Recording, results: Tensor, dtype: torch.dtype, names: Sequence[str], leaves: int) -> Batch:
    """The entries with these numbers, of a type, as a program.

    ``leaves``: the entries of all leaves, in the order of ``names``.
    """
    wanted = results.numpy()
    decided = np.array([number for number, _ in recording.decisions], dtype=np.int64)
    roots = np.concatenate([wanted, decided])
    calls = _sums_joined(recording, roots)
    owner = np.full(recording.size, -1, dtype=np.int64)
    for k, call in enumerate(calls):
        owner[call.start : call.start + call.size] = k
    tasks = _needed(calls, owner, roots)
    schedule = _Schedule(recording, leaves)
    for batch in _batches(tasks):
        schedule.add([tasks[k] for k in batch])
    expected = torch.tensor([taken for _, taken in recording.decisions], dtype=torch.bool)
    read = schedule.operand(wanted, dtype, whole=True)
    decisions = schedule.operand(decided, torch.bool, whole=True) if len(decided) else None
    return Batch(list(names), schedule.steps, read, decisions, expected, len(recording.calls))


def _sums_joined(recording: Recording, roots: Numbers) -> list[Call]:
    """The calls, where a sum of sums that is read nowhere else is one sum."""
    calls = recording.calls
    used = np.zeros(recording.size, dtype=np.int64)
    np.add.at(used, roots, 1)
    for call in calls:
        for operand in call.operands:
            np.add.at(used, operand.reshape(-1).numpy(), 1)
    terms: dict[int, list[Tensor]] = {}
    """First number of a sum's results → what is summed, each (entries,)."""
    found: list[Call] = []
    for call in calls:
        if not _adds(call):
            found.append(call)
            continue
        own: list[Tensor] = []
        for operand in call.operands:
            first = int(operand[0])
            before = terms.get(first)
            n = len(operand)
            if (
                before is not None
                and len(before[0]) == n
                and int(operand[-1]) == first + n - 1
                and bool((used[first : first + n] == 1).all())
                and bool((operand == torch.arange(first, first + n)).all())
            ):
                del terms[first]
                if len(before) > len(own):
                    before.extend(own)
                    own = before
                else:
                    own.extend(before)
            else:
                own.append(operand)
        terms[call.start] = own
        found.append(call)
    joined = []
    for call in found:
        if _adds(call):
            own_terms = terms.get(call.start)
            if own_terms is None:
                continue
            if len(own_terms) > 2:
                what: dict[str, Any] = {"kind": "sum", "func": torch.sum, "name": "sum", "args": (), "kwargs": {}}
                call = replace(call, **what, operands=[torch.stack(own_terms)], dtypes=call.dtypes[:1])
        joined.append(call)
    return joined


def _adds(call: Call) -> bool:
    return (
        call.kind == "each"
        and call.name in ("add", "__add__", "__radd__", "__iadd__")
        and call.args == (Slot(0), Slot(1))
        and not call.kwargs
        and not call.constant
        and call.size > 0
        and len({*call.dtypes, *call.out_dtypes}) == 1
    )


def _needed(calls: list[Call], owner: Numbers, roots: Numbers) -> dict[int, _Task]:
    tasks: dict[int, _Task] = {}
    stack: list[int] = np.unique(owner[roots]).tolist()
    while stack:
        k = stack.pop()
        if k < 0 or k in tasks:
            continue
        call = calls[k]
        operands = [
            operand.reshape(-1).numpy() if call.kind == "each" else operand.numpy() for operand in call.operands
        ]
        tasks[k] = _Task(call, operands, _kind(call))
        for operand in operands:
            stack += np.unique(owner[operand.reshape(-1)]).tolist()
    for k in sorted(tasks):
        task = tasks[k]
        flat = [operand.reshape(-1) for operand in task.operands]
        before = [int(j) for j in np.unique(owner[np.concatenate(flat)]) if j >= 0]
        task.waits = len(before)
        task.depth = 1 + max((tasks[j].depth for j in before), default=0)
        for j in before:
            tasks[j].feeds.append(k)
    return tasks


def _kind(call: Call) -> Any:
    if call.kind == "sum":
        return ("sum", call.dtypes, call.constant)
    what = (call.kind, call.func, _named(call.args), _named(call.kwargs), call.dtypes, call.constant)
    if call.kind == "each":
        return what
    return (*what, tuple(tuple(operand.shape) for operand in call.operands))


def _named(value: Any) -> Any:
    """What tells one argument from another."""
    if isinstance(value, dict):
        return tuple((key, _named(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_named, value))
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    if value is None or isinstance(value, (Slot, bool, int, float, str, torch.dtype, torch.device, type(Ellipsis))):
        return (type(value).__name__, value)
    return ("object", id(value))


def _batches(tasks: dict[int, _Task]) -> list[list[int]]:
    """Which calls are made together, in an order that works."""
    depths: dict[Any, list[int]] = {}
    for task in tasks.values():
        depths.setdefault(task.kind, []).append(task.depth)
    mean = {kind: sum(found) / len(found) for kind, found in depths.items()}
    ready: dict[Any, list[int]] = {}
    for k in sorted(tasks):
        if tasks[k].waits == 0:
            ready.setdefault(tasks[k].kind, []).append(k)
    batches = []
    while ready:
        kind = min(ready, key=lambda one: (mean[one], ready[one][0]))
        batch = ready.pop(kind)
        batches.append(batch)
        for k in batch:
            for j in tasks[k].feeds:
                tasks[j].waits -= 1
                if tasks[j].waits == 0:
                    ready.setdefault(tasks[j].kind, []).append(j)
    return [sorted(batch) for batch in batches]


class _Schedule:
    """Steps while they are added: of every entry, the buffer and the place there."""

    def __init__(self, recording: Recording, leaves: int) -> None:
        self.steps: list[Step] = []
        self.buffer = np.full(recording.size, -1, dtype=np.int64)
        self.place = np.zeros(recording.size, dtype=np.int64)
        self.buffer[:leaves], self.place[:leaves] = 0, np.arange(leaves)
        self._buffers = 1
        self._constants: dict[torch.dtype, Tensor] = {}
        pools: dict[torch.dtype, list[Tensor]] = {}
        sizes: dict[torch.dtype, int] = {}
        for start, values in recording.constants:
            n, before = values.numel(), sizes.get(values.dtype, 0)
            self.buffer[start : start + n] = CONSTANT
            self.place[start : start + n] = np.arange(before, before + n)
            pools.setdefault(values.dtype, []).append(values.reshape(-1))
            sizes[values.dtype] = before + n
        self._constants = {dtype: torch.cat(pool) for dtype, pool in pools.items()}

    def add(self, batch: list[_Task]) -> None:
        first = batch[0].call
        if first.kind == "each":
            self._add_each(batch)
        elif first.kind == "sum":
            self._add_sums(batch)
        else:
            self._add_whole(batch)

    def _add_each(self, batch: list[_Task]) -> None:
        """What is computed of the same entries twice is computed once."""
        call = batch[0].call
        rows = np.stack([np.concatenate(columns) for columns in zip(*(task.operands for task in batch), strict=True)])
        made = np.concatenate([np.arange(task.call.start, task.call.start + task.call.size) for task in batch])
        if rows.shape[1] > 1:
            _, index, inverse = np.unique(rows, axis=1, return_index=True, return_inverse=True)
            inverse = inverse.reshape(-1)
            order = np.argsort(index)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            rows, places = rows[:, index[order]], rank[inverse]
        else:
            places = np.zeros(rows.shape[1], dtype=np.int64)
        operands = [self.operand(row, dtype) for row, dtype in zip(rows, call.dtypes, strict=True)]
        self.steps.append(Step(call.func, call.args, call.kwargs, operands, call.constant))
        self._made(made, places)

    def _add_sums(self, batch: list[_Task]) -> None:
        call, counts = batch[0].call, [task.call.size for task in batch]
        terms = {len(task.operands[0]) for task in batch}
        made = np.concatenate([np.arange(task.call.start, task.call.start + task.call.size) for task in batch])
        step = Step(call.func, (), {}, [], call.constant, sums=sum(counts))
        if len(terms) == 1:
            rows = np.concatenate([task.operands[0] for task in batch], 1)
            step.terms = terms.pop()
            step.operands = [self.operand(rows.reshape(-1), call.dtypes[0], whole=True)]
        else:
            starts = np.cumsum([0, *counts])
            segments = [
                np.tile(np.arange(start, start + n), len(task.operands[0]))
                for start, n, task in zip(starts, counts, batch, strict=False)
            ]
            step.segments = torch.from_numpy(np.concatenate(segments))
            flat = np.concatenate([task.operands[0].reshape(-1) for task in batch])
            step.operands = [self.operand(flat, call.dtypes[0], whole=True)]
        self.steps.append(step)
        self._made(made, np.arange(len(made)))

    def _add_whole(self, batch: list[_Task]) -> None:
        """Calls of the same entries are made once."""
        call, seen, places = batch[0].call, dict[Any, int](), []
        chosen: list[_Task] = []
        for task in batch:
            key = tuple(operand.tobytes() for operand in task.operands)
            if key not in seen:
                seen[key] = len(chosen)
                chosen.append(task)
            places.append(seen[key])
        count = len(chosen)
        operands: list[Operand] = []
        shared: list[bool] = []
        for slot, dtype in enumerate(call.dtypes):
            members = [task.operands[slot] for task in chosen]
            same = all(np.array_equal(members[0], other) for other in members)
            shape = members[0].shape if same else (count, *members[0].shape)
            flat = np.concatenate([one.reshape(-1) for one in (members[:1] if same else members)])
            operand = self.operand(flat, dtype, whole=True)
            operands.append(Operand(operand.parts, operand.constant, operand.order, tuple(shape)))
            shared.append(same)
        if all(shared):
            count = 1
        self.steps.append(
            Step(call.func, call.args, call.kwargs, operands, call.constant, count=count, shared=tuple(shared))
        )
        offset = 0
        for shape in call.shapes:
            n = shape.numel()
            own = [np.arange(task.call.start + offset, task.call.start + offset + n) for task in batch]
            at = [np.arange(place * n, place * n + n) for place in places]
            self._made(np.concatenate(own), np.concatenate(at))
            offset += n

    def _made(self, numbers: Numbers, places: Numbers) -> None:
        self.buffer[numbers], self.place[numbers] = self._buffers, places
        self._buffers += 1

    def operand(self, numbers: Numbers, dtype: torch.dtype, whole: bool = False) -> Operand:
        """How entries are read; one that all are is read once, where it may be broadcast (not ``whole``)."""
        if not len(numbers):
            return Operand((), torch.empty(0, dtype=dtype))
        if not whole and len(numbers) > 1 and bool((numbers == numbers[0]).all()):
            numbers = numbers[:1]
        buffers, places = self.buffer[numbers], self.place[numbers]
        found = np.unique(buffers)
        if (found == -1).any():
            raise ValueError("an operand is read before it is made")
        if len(found) == 1:
            if found[0] == CONSTANT:
                return Operand((), self._constant(places, dtype))
            return Operand((self._part(int(found[0]), places),))
        parts: list[Part] = []
        order = np.empty(len(numbers), dtype=np.int64)
        start, steps = 0, []
        for buffer in found:
            own = np.flatnonzero(buffers == buffer)
            order[own] = np.arange(start, start + len(own))
            start += len(own)
            steps.append((int(buffer), places[own]))
        for buffer, own in steps:
            if buffer == CONSTANT:
                self.steps.append(Step(_itself, (Slot(0),), {}, [Operand((), self._constant(own, dtype))], False))
                buffer, own = self._buffers, np.arange(len(own))
                self._buffers += 1
            parts.append(self._part(buffer, own))
        sorted_ = bool((order == np.arange(len(order))).all())
        return Operand(tuple(parts), None, None if sorted_ else torch.from_numpy(order))

    def _constant(self, places: Numbers, dtype: torch.dtype) -> Tensor:
        return self._constants[dtype][torch.from_numpy(places)]

    def _part(self, buffer: int, places: Numbers) -> Part:
        start, n = int(places[0]) if len(places) else 0, len(places)
        if bool((places == np.arange(start, start + n)).all()):
            return Part(buffer, start, start + n)
        return Part(buffer, index=torch.from_numpy(places))


def _itself(tensor: Tensor) -> Tensor:
    return tensor
