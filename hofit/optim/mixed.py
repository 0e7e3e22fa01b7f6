"""Several optimizers on one loss, each for parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..patterns import assign, near_misses, select
from ..point import Params, Point
from ..record import PartReport
from .base import Optimizer, Proposal, State
from .foreign import Part, as_optimizer

ORDERS = ("simultaneous", "alternating")


class MixedMultiOptimizer(Optimizer):
    """Optimizers for different parameters, stepped together.

    ``simultaneous``: every part reads its derivatives at one point, then all move, then one trace judges the move; a
    part that refuses its step takes it back alone, and the rest is traced again.
    ``alternating``: part after part, each at the point that the one before has reached.

    A drop-in replacement for ``pyro.optim.multi.MixedMultiOptimizer``: no part writes while another still needs the
    graph, and a parameter that no part has is an error. A part that gets no parameter is never asked for a step.

    Args:
        parts: ``(names, optimizer)`` pairs; names are literal or patterns (the first entry that matches has it);
            a ``PyroOptim`` or any ``MultiOptimizer`` is wrapped.
        order: ``simultaneous`` or ``alternating``.
    Raises: ValueError if two parts claim a name, or the order is neither.
    """

    name = "mixed"

    def __init__(self, parts: Sequence[tuple[Sequence[str], Part]], order: str = "simultaneous") -> None:
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
        self.order = order
        self.parts: list[tuple[list[str], Optimizer]] = []
        claimed: dict[str, Part] = {}
        for given, part in parts:
            names = [given] if isinstance(given, str) else list(given)
            for name in names:
                if name in claimed:
                    raise ValueError(f"parameter {name!r} is given to two optimizers: {claimed[name]!r} and {part!r}")
                claimed[name] = part
            self.parts.append((names, as_optimizer(part)))
        self._moving = [part for _, part in self.parts]
        self._accepted: list[bool] = []

    @property
    def judges(self) -> bool:  # type: ignore[override]
        """Whether any part may refuse its step."""
        return any(part.judges for part in self._moving)

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        """Whether any part reads the gradient's graph."""
        return any(part.second_order for part in self._moving)

    @property
    def rewinds(self) -> bool:  # type: ignore[override]
        """Whether all parts do, and none judges its step."""
        return self.order == "simultaneous" and all(part.rewinds and not part.judges for part in self._moving)

    def restart(self) -> None:
        for part in self._moving:
            part.restart()

    def exhausted(self) -> bool:
        return all(part.exhausted() for part in self._moving)

    def bind(self, names: Sequence[str]) -> None:
        super().bind(names)
        for (_, part), owned in zip(self.parts, self._assign(names), strict=True):
            part.bind(owned)
        self._moving = [part for _, part in self.parts if part.names]

    def begin_at(self, point: Point) -> None:
        self._require_binding(point)
        for part in self._moving:
            part.begin_at(point)

    def propose(self, point: Point) -> Proposal:
        """The simultaneous move of all parts."""
        self._require_binding(point)
        return Proposal(_joined(part.propose(point) for part in self._moving))

    def advance(self, point: Point) -> tuple[Point, bool]:
        self._require_binding(point)
        if self.order == "alternating":
            self._accepted = []
            for part in self._moving:
                point, accepted = part.advance(point)
                self._accepted.append(accepted)
                if point.failure is not None or not isfinite(point.value):
                    break
            return point, any(self._accepted)
        return self._advance_together(point)

    def reports(self) -> list[PartReport]:
        heard = zip_longest(self._moving, self._accepted)
        return [
            replace(one, accepted=kept if part.judges else None, judges=part.judges)
            for part, kept in heard
            for one in part.reports()
        ]

    def remarks(self) -> list[str]:
        return [remark for _, part in self.parts for remark in part.remarks()]

    def state_dict(self) -> State:
        return {"parts": [part.state_dict() for _, part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for (_, part), own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)

    def get_step(self, loss: Tensor, params: Params) -> Params:
        updated: Params = {}
        for part, own in self._shared_out(params):
            updated.update(part.get_step(loss, own))
        return updated

    def prepare(self, loss: Tensor, params: Params) -> Callable[[], None]:
        if self.order == "alternating":
            raise ValueError("an alternating mix traces again between its parts: it cannot step on one bare loss")
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is {float(loss.detach())}: no step can be taken from it")
        writes = [part.prepare(loss, own) for part, own in self._shared_out(params)]

        def write() -> None:
            for one in writes:
                one()

        return write

    def _advance_together(self, point: Point) -> tuple[Point, bool]:
        point.gradient(self.second_order)  # once for all parts, with its graph if any of them reads curvature
        proposals = [part.propose(point) for part in self._moving]
        if not self.judges:
            self._accepted = [True] * len(proposals)
            return point.at({**point.params, **_joined(proposals)}), True
        gradient = point.gradient()
        slopes = [_slope(gradient, point.params, proposal.params) for proposal in proposals]
        alone = proposals[0].point if len(proposals) == 1 else None
        candidate = alone or point.at({**point.params, **_joined(proposals)})
        self._accepted = [
            part.accept(point, proposal, candidate, others=sum(slopes) - slope)
            for part, proposal, slope in zip(self._moving, proposals, slopes, strict=True)
        ]
        if all(self._accepted):
            return candidate, True
        kept = [proposal for proposal, accepted in zip(proposals, self._accepted, strict=True) if accepted]
        if not kept:
            return point, False
        candidate = point.at({**point.params, **_joined(kept)})
        free = [proposal for proposal, part in zip(proposals, self._moving, strict=True) if not part.judges]
        if len(kept) > len(free) and not candidate.value <= point.value:
            # What the steps promised together they do not keep apart: a judged step never raises the loss.
            self._accepted = [not part.judges for part in self._moving]
            return (point.at({**point.params, **_joined(free)}), True) if free else (point, False)
        return candidate, True

    def _shared_out(self, params: Params) -> list[tuple[Optimizer, Params]]:
        owners = zip(self.parts, self._assign(params), strict=True)
        return [(part, {name: params[name] for name in names}) for (_, part), names in owners if names]

    def _assign(self, names: Sequence[str] | Params) -> list[list[str]]:
        ownership = assign([patterns for patterns, _ in self.parts], names)
        if ownership.orphans:
            raise ValueError(f"no part has the parameter {ownership.orphans[0]!r}: it would never move")
        for pattern in (pattern for patterns, _ in self.parts for pattern in patterns):
            if not select([pattern], names):
                raise ValueError(f"no parameter matches {pattern!r}{near_misses(pattern, names)}")
        return ownership.owners

    def _require_binding(self, point: Point) -> None:
        if self.names is None:
            self.bind(list(point.params))


def _joined(proposals: Iterable[Proposal]) -> Params:
    return {name: value for proposal in proposals for name, value in proposal.params.items()}


def _slope(gradient: Params, before: Params, after: Params) -> float:
    return sum(float((gradient[name] * (value - before[name])).sum()) for name, value in after.items())
