"""A density's loss by few large operations, where the model computes it by many small ones.

The model is still traced at every point, for the value; the graph that is differentiated is the program's, as long as
it has that value. Where it has not, or its derivatives are not the model's own, the model's are taken from then on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..curvature.batching.program import Batch
from ..curvature.batching.recording import Recording, RecordingFailed
from ..curvature.batching.schedule import scheduled
from ..curvature.proof import is_off, probe
from ..model.program import Program
from ..point import Params

MANY_SITES = 24
"""Sample sites from which on a model is recorded: it may loop over them."""

FEWER = 4
"""Times fewer operations that a program must have, to be taken."""

LARGE = 4096
"""Entries of an operation's results, on average, from which on it costs more to compute them than to ask for it."""

AGREEMENT = 1e6
"""How many roundings two evaluations, or two derivatives, may be apart."""


def loops(program: Program) -> bool:
    """Whether a model may loop over its sites: whether it is worth to look."""
    many = len(program.latents) + len(program.not_fitted) + len(program.parameters) >= MANY_SITES
    # What is summed out makes the loop, and few numbers are left: their few products gain nothing.
    few = bool(program.discrete) and len(program.latents) + len(program.parameters) < MANY_SITES
    integral = any(site.role == "integrated" for site in program.sites.values())
    return many and (integral or not few) and not program.subsampled


def recorded(leaves: Params, compute: Callable[[], Tensor]) -> tuple[Batch, Tensor] | None:
    """What is computed of the leaves as a program, and what came of it; None where that would gain nothing."""
    recording = Recording(leaves)
    try:
        with recording:
            computed = compute()
        results = recording.finish(computed)
    except RecordingFailed:
        return None
    calls = recording.calls
    if sum(call.size for call in calls) > LARGE * len(calls):
        return None
    try:
        found = scheduled(
            recording, results, computed.dtype, list(leaves), sum(leaf.numel() for leaf in leaves.values())
        )
    except (ValueError, KeyError):
        return None
    return None if len(found.steps) * FEWER > found.calls else (found, computed)


class Batched:
    """What one program's loss is computed by; those who share leaves share it. Use inside ``program.scope()``."""

    def __init__(self, program: Program, leaves: Params) -> None:
        self._program, self._leaves = program, leaves
        self._found: dict[frozenset[str], Batch | None] = {}
        """For the latents whose transforms count; None where the model's own graph is taken."""

    def loss(self, jacobian: frozenset[str], trace: Callable[[], Tensor], plain: Callable[[], Tensor]) -> Tensor:
        """The loss at the leaves, that ``trace`` computes, to be differentiated; ``plain``: without validation.

        Shape ().
        """
        if not torch.is_grad_enabled():
            return trace()
        if jacobian not in self._found:
            self._found[jacobian] = None
            if loops(self._program):
                self._found[jacobian] = self._recorded(plain)
        program = self._found[jacobian]
        if program is None:
            return trace()
        with torch.no_grad():
            value = trace()
        found = self._run(program)
        if found is not None and not self._is(found, value):
            found = None
            if bool(torch.isfinite(value)):
                self.give_up(jacobian)
        return trace() if found is None else found

    def again(self, jacobian: frozenset[str]) -> Tensor | None:
        """The loss at leaves where ``loss`` was asked before; None where only the model can tell."""
        program = self._found.get(jacobian)
        return None if program is None else self._run(program)

    def operations(self, jacobian: frozenset[str]) -> int:
        """Operations of the program, or 0 where the model is taken."""
        program = self._found.get(jacobian)
        return 0 if program is None else len(program.steps)

    def give_up(self, jacobian: frozenset[str]) -> None:
        """Take the model's own graph from now on."""
        self._found[jacobian] = None

    def _run(self, program: Batch) -> Tensor | None:
        """The program's loss, where it decides as the model did when it was recorded."""
        try:
            found, holds = program(self._leaves)
        except (RuntimeError, IndexError, ValueError):
            return None
        return found[0] if bool(holds) else None

    def _is(self, found: Tensor, value: Tensor) -> bool:
        tolerance = AGREEMENT * torch.finfo(value.dtype).eps
        return not is_off(found.detach().reshape(1), value.reshape(1), tolerance)

    def _recorded(self, trace: Callable[[], Tensor]) -> Batch | None:
        made = recorded(self._leaves, trace)
        if made is None:
            return None
        found, loss = made
        own = self._run(found)
        agrees = own is not None and self._is(own, loss.detach()) and self._derivatives_agree(own, loss)
        return found if agrees else None

    def _derivatives_agree(self, own: Tensor, loss: Tensor) -> bool:
        """Whether gradient and a product with a probe are those of the model's own graph."""
        leaves = [leaf for leaf in self._leaves.values() if leaf.requires_grad]
        if not leaves:
            return False
        noise = [probe(leaf, k) for k, leaf in enumerate(leaves)]
        pairs: list[list[Tensor]] = []
        for one in (own, loss):
            try:
                slope = torch.autograd.grad(one, leaves, create_graph=True, materialize_grads=True)
                along = torch.stack([(s * v).sum() for s, v in zip(slope, noise, strict=True)]).sum()
                pairs.append([*slope, *torch.autograd.grad(along, leaves, materialize_grads=True)])
            except RuntimeError:  # torch has no such derivative
                return False
        tolerance = AGREEMENT * torch.finfo(loss.dtype).eps
        flat = [torch.cat([one.detach().reshape(-1) for one in pair]) for pair in pairs]
        return not is_off(flat[0], flat[1], tolerance)
