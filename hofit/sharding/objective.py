"""The objective of data in pieces: what the pieces answer, added up in their order."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import CheckpointError
from ..objective.base import Keeper, Objective
from ..point import DifferentiatedPoint, Evaluations, Params, Point, Site, same
from .message import Message, unpack
from .team import Each, Team


@dataclass(eq=False)
class ShardedPoint(DifferentiatedPoint):
    """A point of the sum; the pieces know what belongs to it by its ``number``. Where not ``exact``, its Hessian is
    good enough for a step."""

    source: ShardedObjective = field(kw_only=True)
    number: int = -1
    exact: bool = False

    def at(self, params: Params) -> Point:
        return self.source.evaluated(params, near=self, exact=self.exact)

    def hvp(self, vectors: Params) -> Params:
        return self.source.products(self, vectors)


WHOLE = 256
"""Parameters up to which their Hessian is asked for as a whole: most who ask for a product ask for all."""


class ShardedObjective(Objective):
    """The sum of what all pieces add, over what they share. Use inside the first piece's ``program.scope()``.

    The pieces settle what is their own, each beside its data; only what is shared goes between processes: numbers of
    parameters, gradients and Hessians, however many groups there are.
    """

    in_pieces = True

    def __init__(self, team: Team, remarks: Sequence[str]) -> None:
        """``remarks`` say how the data are shared out."""
        own = team.own
        self.team, self.own = team, own
        self.type, self.program, self.leaves = own.objective.type, own.program, own.objective.leaves
        self.jacobian, self.integrated = own.objective.jacobian, own.objective.integrated
        self.sites: Mapping[str, Site] = own.program.sites
        self.evaluations = Evaluations()
        self._outer: Coordinates = own.outer
        self._remarks = list(remarks)
        self._count = 0
        self._gone: list[int] = []
        self._recalled: tuple[int | None, ShardedPoint | None] = None, None
        """Whose mode a piece that knows no other goes on from; and the point, so that it is not forgotten."""
        self._curved: tuple[ShardedPoint, Tensor] | None = None
        self._curves = False
        """Whether Hessians are asked for with the points: they are wanted, and cost as much again afterwards."""

    @property
    def stochastic(self) -> bool:
        return self.own.objective.stochastic

    def start(self) -> Params:
        start = self.own.objective.start()
        return {name: start[name] for name in self._outer.names}

    def at(self, params: Params) -> Point:
        return self.evaluated(params)

    def at_full(self, params: Params) -> Point:
        return self.evaluated(params, full=True, exact=True)

    def evaluated(
        self, params: Params, near: ShardedPoint | None = None, full: bool = False, exact: bool = False
    ) -> ShardedPoint:
        """A new point. Its mode is sought from that of ``near``; without it, from wherever each piece has it from."""
        self.evaluations.loss += 1
        self._count += 1
        point = ShardedPoint(params, torch.tensor(float("inf")), source=self, number=self._count, exact=exact)
        weakref.finalize(point, self._gone.append, point.number).atexit = False
        if near is not None:
            self._recalled = near.number, near
        question: Message = {
            "number": point.number,
            "near": None if near is None else near.number,
            "recalled": self._recalled[0],
            "params": self._outer.flatten(params),
            "full": full,
            "exact": exact,
            "unit": self.program.unit,
            "curved": self._curves,
        }
        answers = self._ask("at", question)
        self.evaluations.inner += sum(answer["inner"] for answer in answers)
        failed = next((k for k, answer in enumerate(answers) if "failure" in answer), None)
        if failed is not None:
            point.failure = f"{self.called(failed)}: {answers[failed]['failure']}"
            return point
        if near is None:
            self._recalled = point.number, point
        self.evaluations.gradient += 1
        point.loss = _sum([answer["loss"] for answer in answers])
        if "hessian" in answers[0]:
            self.evaluations.hvp += self._outer.size
            self._curved = point, _sum([answer["hessian"] for answer in answers])
        point.known_gradient = self._outer.unflatten(_sum([answer["gradient"] for answer in answers]))
        return point

    def products(self, point: ShardedPoint, vectors: Params) -> Params:
        """Products of the Hessian of the sum; of few parameters it is asked for whole, and kept."""
        probes = len(next(iter(vectors.values())))
        held = {name: value.new_zeros(probes, *value.shape) for name, value in point.params.items()}
        flat = self._outer.flatten({**held, **vectors})
        if self._outer.size > WHOLE:
            found = self._products(point, flat)
        else:
            if self._curved is None or not self._serves(point):
                self._curved = point, self._products(point, torch.eye(self._outer.size).to(flat))
                self._curves = self.team.comes_back
            found = flat @ self._curved[1]
        products = self._outer.unflatten(found)
        return {name: products[name] for name in vectors}

    def _serves(self, point: ShardedPoint) -> bool:
        assert self._curved is not None
        last = self._curved[0]
        return same(point.params, last.params) and (last.exact or not point.exact)

    def _products(self, point: ShardedPoint, vectors: Tensor) -> Tensor:
        self.evaluations.hvp += len(vectors)
        question: Message = {"number": point.number, "params": self._outer.flatten(point.params)}
        answers = self._ask("products", {**question, "exact": point.exact, "vectors": vectors})
        return _sum([answer["products"] for answer in answers])

    def check(self, point: Point) -> None:
        assert isinstance(point, ShardedPoint)
        self._ask("check", {"number": point.number})

    def values(self, params: Params) -> Params:
        return self.own.objective.values(params)

    def explain_non_finite(self, params: Params) -> str:
        return self.own.objective.explain_non_finite(params)

    def describe_inner(self, point: Point) -> str | None:
        assert isinstance(point, ShardedPoint)
        found = self.own.objective.describe_inner(self.own.points[point.number])
        return None if found is None else f"of the first of {self.team.size} pieces: {found}"

    def remarks(self, params: Params) -> list[str]:
        return [*self._remarks, *self.own.objective.remarks(params)]

    def facts(self, loss: float) -> dict[str, float]:
        """How many pieces there are, and what went between them for an evaluation, on average."""
        asked = max(1, self._count)
        return {"pieces": self.team.size, "bytes_per_evaluation": round(self.team.communicated / asked)}

    def called(self, piece: int) -> str:
        """A piece, for the user."""
        return f"piece {piece} of {self.team.size}"

    # what a checkpoint keeps of the pieces -----------------------------------------------------------------------

    def keeper(self, point: Point) -> Keeper | None:
        if not isinstance(point, ShardedPoint) or not self.own.local:
            return None

        def keep(folder: Path, iteration: int) -> list[Message]:
            names = [f"piece-{iteration}-{number}.safetensors" for number in range(self.team.size)]
            question: Message = {"number": point.number}
            answers = self._ask("keep", question, lambda piece: {"path": str(folder / names[piece])})
            return [{"file": name, **answer} for name, answer in zip(names, answers, strict=True)]

        return keep

    def go_on_from(self, params: Params, folder: Path, pieces: Sequence[Message], allow_changed: bool) -> None:
        """Go on from modes that were kept, by as many pieces or others. Raises: CheckpointError."""
        files = [unpack((folder / piece["file"]).read_bytes()) for piece in pieces]
        self._count += 1
        self._recalled = self._count, None
        question: Message = {"number": self._count, "params": self._outer.flatten(params)}
        if len(files) != self.team.size:
            whole = joined_modes(folder, pieces)
            sizes = [fact["size"] for fact in self._ask("digest", {})]
            if sum(sizes) != sum(piece["size"] for piece in pieces):
                raise CheckpointError("the checkpoint is of another number of rows of the plate that is shared out")
            parts = {name: value.split(sizes, files[0]["dims"][name]) for name, value in whole.items()}
            inner = [{name: parts[name][k].contiguous() for name in parts} for k in range(len(sizes))]
        else:
            inner = [file["inner"] for file in files]
            arguments = [answer["arguments"] for answer in self._ask("digest", {})]
            changed = [k for k, file in enumerate(files) if file["arguments"] != arguments[k]]
            if changed and not allow_changed:
                raise CheckpointError(
                    f"the data of {self.called(changed[0])} (the model's arguments) have changed since the checkpoint "
                    "was written; --allow-changed goes on all the same"
                )
        self._ask("restore", question, lambda piece: {"inner": inner[piece]})

    def ending(self, point: Point, gaussian: Message | None, limiting: Params, full: bool) -> list[Message]:
        """What each piece says of an end: see ``Piece.ending``."""
        assert isinstance(point, ShardedPoint)
        question: Message = {"number": point.number, "params": self._outer.flatten(point.params), "exact": point.exact}
        return self._ask("ending", {**question, "gaussian": gaussian, "limiting": limiting, "full": full})

    def _ask(self, what: str, content: Message, each: Each | None = None) -> list[Message]:
        gone, self._gone[:] = list(self._gone), []
        if gone:
            self.team.forget(gone)
        return self.team.ask(what, content, each)


def joined_modes(folder: Path, pieces: Sequence[Message]) -> Params:
    """The modes that some pieces have kept, as one of all rows; empty where nothing is their own."""
    files = [unpack((folder / piece["file"]).read_bytes()) for piece in pieces]
    dims: dict[str, int] = files[0]["dims"] if files else {}
    return {name: torch.cat([file["inner"][name] for file in files], dim) for name, dim in dims.items()}


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Always in the order of the pieces, so that the same pieces give the same bits."""
    total = parts[0].clone()
    for part in parts[1:]:
        total = total + part.to(total)
    return total
