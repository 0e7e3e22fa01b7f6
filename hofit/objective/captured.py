"""A density's loss, gradient and Hessian-vector products, replayed without the model once proved to be its own.

A deterministic model is one function of its leaves. After some evaluations one is written down (`capture/`), held
against the model's own at two other points, bit for bit, and takes its place. The model is traced again where a verdict
is taken, at every checkpoint, and where a number is not finite: a model that has become another function is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeGuard

import torch
from torch import Tensor

from ..capture.replay import ByBoth, Replay, by_trace
from ..capture.tape import NotCaptured, Recorder
from ..errors import ModelError
from ..model.program import Program
from ..point import Params
from .leaves import Leaves

AFTER = 6
"""Evaluations before one is written down: that takes as long as so many."""

AFTER_PRODUCTS = 3
"""The same of products of several vectors at once, which take longer."""

PROOFS = 2
"""Points at which the replay must be the trace, to the last bit."""

LARGE = 1 << 17
"""Terms of a loss, or entries of a result on average, from which on the time goes into computing: nothing is gained,
and what does not depend on the parameters would be kept."""

Tensors = Sequence[Tensor]


class Function:
    """One function of some tensors: first computed, then written down, then proved, then replayed.

    ``refused`` says why it stays computed; it is empty where that is no fault of the model's.
    """

    def __init__(self, after: int) -> None:
        self.refused: str | None = None
        self._after = after
        self._calls, self._proofs = 0, 0
        self._replay: Replay | None = None

    @property
    def waits(self) -> bool:
        """Whether an evaluation is only counted."""
        return self.refused is not None or (self._replay is None and self._calls < self._after)

    @property
    def used(self) -> bool:
        return self.refused is None and self._proofs >= PROOFS

    def count(self) -> None:
        self._calls += 1

    def give_up(self) -> None:
        """Compute it from now on."""
        self.refused = ""

    def replayed(self, inputs: Tensors) -> tuple[Tensor, ...] | None:
        """What the function gives; None where only the model can tell."""
        if self._replay is None or not self.used:
            return None
        try:
            return self._replay(inputs)
        except RuntimeError:  # a factorisation that fails
            return None

    def take(
        self,
        inputs: Tensors,
        leaves: Tensors,
        compute: Callable[[], Tensors | None],
        of_inputs: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        """Write ``compute`` down, or hold the replay against it; it reads ``leaves``, which hold ``inputs``.

        Nothing comes of it where it gives None, or what is not finite. ``of_inputs`` is the same as a function of the
        inputs, for where torch computes derivatives in another order while it is watched (`binary_cross_entropy`).
        """
        if self._replay is None:
            self._write_down(inputs, leaves, compute, of_inputs)
            return
        found = compute()
        if _is_usable(found):
            self._prove(found, inputs)

    def _write_down(
        self,
        inputs: Tensors,
        leaves: Tensors,
        compute: Callable[[], Tensors | None],
        of_inputs: Callable[..., tuple[Tensor, ...]] | None,
    ) -> None:
        recorder = Recorder(leaves)
        with recorder:
            recorded = compute()
        found = compute()  # what is recorded may be computed in another order: torch asks whether someone looks on
        if not _is_usable(found) or recorded is None:
            return
        try:
            tape = recorder.finish(recorded)
        except NotCaptured as refusal:
            self.refused = str(refusal)
            return
        if tape.size > LARGE:
            self.give_up()
        elif all(map(torch.equal, recorded, found)):
            self._replay = ByBoth(tape)
        else:
            self.give_up()
            if of_inputs is not None:
                with suppress(Exception):  # whatever the interpreter cannot take
                    self._replay, self.refused = by_trace(of_inputs, inputs), None

    def _prove(self, found: Tensors, inputs: Tensors) -> None:
        assert self._replay is not None
        try:
            again = self._replay(inputs)
        except RuntimeError as error:
            self.refused = f"what it computes cannot be computed again: {str(error).strip().splitlines()[-1]}"
            return
        if all(torch.equal(one, other) for one, other in zip(found, again, strict=True)):
            self._proofs += 1
        else:
            self.refused = "replayed at another point it is not what the model computes there"


class Captured:
    """What one density is replayed by. Use inside ``program.scope()``.

    Args: leaves: of the program, in the order of the functions' inputs.
    """

    def __init__(self, program: Program, leaves: Leaves, on: bool = True) -> None:
        self._program, self._writer, self._leaves = program, leaves, leaves.tensors
        self.loss = Function(AFTER)
        """Loss and gradient."""
        if not on or program.subsampled or any(leaf.device.type != "cpu" for leaf in self._leaves.values()):
            self.loss.give_up()
        self._products: dict[tuple[str, ...], Function] = {}
        self._then: tuple[Params, Mapping[str, float]] | None = None
        """A place, and the sites' log densities there when the loss was written down."""

    @property
    def refused(self) -> str | None:
        """Why the model is traced at every point, where that lies in the model; None where it does not."""
        return self.loss.refused or None

    def inputs(self, params: Params) -> list[Tensor]:
        """The leaves' values where they hold ``params``."""
        return [params.get(name, leaf) for name, leaf in self._leaves.items()]

    def products(self, vectors: Params) -> Function | None:
        """That of the Hessian with so many vectors over these names; None where they are always computed."""
        if self.loss.refused is not None:
            return None
        count = len(next(iter(vectors.values())))
        return self._products.setdefault((*vectors, str(count)), Function(AFTER if count == 1 else AFTER_PRODUCTS))

    def take(
        self,
        inputs: Tensors,
        compute: Callable[[], Tensors | None],
        of_values: Callable[[Params], tuple[Tensor, ...]],
    ) -> None:
        """Loss and gradient, as `Function.take`; the sites' log densities are noted as they are now."""
        names, weights = list(self._leaves), any(isinstance(one, torch.nn.Parameter) for one in self._leaves.values())

        def of_inputs(*values: Tensor) -> tuple[Tensor, ...]:
            return of_values(dict(zip(names, values, strict=True)))

        self.loss.take(inputs, list(self._leaves.values()), compute, None if weights else of_inputs)
        if self._then is None and not self.loss.waits:
            there = {name: leaf.detach().clone() for name, leaf in self._leaves.items()}
            self._then = (there, self._program.site_log_densities())

    def difference(self) -> ModelError:
        """The error that the model is no longer the function that was written down; names the first site."""
        where = ""
        if self._then is not None:
            place, before = self._then
            self._writer.write(place)
            now = self._program.site_log_densities()
            changed = [name for name, value in before.items() if now.get(name) != value]
            where = f", first at site {changed[0]!r}" if changed else ""
        return ModelError(
            f"the model has become another function since it was captured{where}: the same parameters give another "
            "loss. A deterministic objective needs a model that holds no state of its own (or set capture: off)"
        )


def _is_usable(found: Tensors | None) -> TypeGuard[Tensors]:
    return found is not None and all(bool(torch.isfinite(one).all()) for one in found)
