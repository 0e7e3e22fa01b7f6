"""A piece of the data: what it adds to the loss and its derivatives, and what it knows of its own rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.proof import probe
from ..linear.dense import Dense
from ..model.arguments import digest_arguments
from ..model.sites import InfeasibleError
from ..objective.base import Objective
from ..point import Params, Point
from ..uncertainty.errors import Uncertainty, find_uncertainty
from ..uncertainty.gaussian import Conditional, Gaussian
from ..verdict.checks import Verdict
from .message import Message, pack

BESIDE = 0.5
"""Unconstrained units from the start at which densities of pieces are compared, too: there zero is none by chance."""

SENSITIVITY_LIMIT = 2**27
"""Numbers of dû/dθ at most that a piece takes: 1 GB."""


@dataclass(frozen=True)
class Whereabouts:
    """What a piece has of the data.

    ``plate`` is the one whose rows are shared out; ``groups`` how many levels of a column number them here, None where
    no column does; ``lengths`` those of the piece's own arrays; ``digests`` file → SHA-256.
    """

    plate: str | None
    groups: int | None
    lengths: frozenset[int]
    by: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


class Piece:
    """Answers what is asked of all pieces. Use inside ``program.scope()``.

    ``local`` names what stands in the rows that are shared out. Points are known by the numbers that they are asked
    for with, until they are forgotten; of points that an earlier self has known, the mode is remembered.
    """

    def __init__(
        self,
        objective: Objective,
        local: Sequence[str],
        whereabouts: Whereabouts,
        write: Callable[[Path, bytes], None],
    ) -> None:
        """``write`` makes a file appear whole, and synced."""
        self._write = write
        self.objective, self.program, self.local = objective, objective.program, list(local)
        self.whereabouts = whereabouts
        start = objective.start()
        self.outer = Coordinates.of(start, [name for name in start if name not in local])
        self.points: dict[int, Point] = {}
        self.remembered: dict[int, tuple[Params, Params]] = {}
        """Number → the parameters and the mode there."""
        self.known: Uncertainty | None = None
        """What was last found of the errors."""
        self._digest: str | None = None
        self._answers: dict[str, Callable[..., Message]] = {
            "facts": self.facts,
            "count_elsewhere": self.count_elsewhere,
            "at": self.at,
            "products": self.products,
            "check": self.check,
            "digest": self.digest,
            "keep": self.keep,
            "restore": self.restore,
            "ending": self.ending,
        }

    def answer(self, what: str, content: Message) -> Message:
        """What is asked by name. Raises: ModelError, StepImpossible and what the model raises."""
        return self._answers[what](**content)

    def facts(self, params: Tensor) -> Message:
        """What the pieces must agree on, and what they differ in, at a place that is the same for all."""
        sites, at, start = self.program.sites, self.whereabouts, self.objective.start()
        digests = {name: _digest(start[name]) for name in self.outer.names}
        densities: list[dict[str, float]] = []
        if len(params) == self.outer.size:  # else there are no such places, which will be told
            for away in (BESIDE, 0.0):
                self.objective.leaves.write(self.outer.unflatten(params + away * probe(params)))
                with suppress(InfeasibleError):
                    densities.append(self.program.site_log_densities(full=True))
        outside = self.program.outside(at.plate)
        return {
            "outer": {
                name: [list(sites[name].shape), sites[name].constraint, digests[name]] for name in self.outer.names
            },
            "parameters": [name for name in self.outer.names if sites[name].role == "parameter"],
            "local": {name: list(sites[name].shape) for name in self.local},
            "size": self.size,
            "groups": at.groups,
            "plate": at.plate,
            "by": at.by,
            "outside": {name: asdict(one) for name, one in outside.items()},
            "densities": {name: [one.get(name) for one in densities] for name in (*self.outer.names, *outside)},
            "discrete": list(self.program.discrete),
            "lengths": sorted(at.lengths),
            "digests": dict(at.digests),
        }

    def count_elsewhere(self, names: list[str]) -> Message:
        """Hear which sites another piece counts."""
        self.program.count_elsewhere(names)
        return {}

    def at(
        self,
        number: int,
        near: int | None,
        recalled: int | None,
        params: Tensor,
        full: bool,
        exact: bool,
        unit: float,
        curved: bool,
    ) -> Message:
        """Value and gradient (p,) at a place, as a new point; the Hessian (p, p) too if ``curved``.

        ``near`` is the number of one to seek the mode from; ``recalled`` that of one whose mode an earlier self knew.
        """
        self.program.unit = unit
        before, place = self.objective.evaluations.inner, self.outer.unflatten(params)
        if near in self.points and not full:
            point = self.points[near].at(place)
        else:
            for known in (recalled, near):
                if known in self.remembered:
                    self._go_on_from(*self.remembered[known])
            point = self.objective.at_full(place) if full or exact else self.objective.at(place)
        self.points[number] = point
        answer: Message = {"inner": self.objective.evaluations.inner - before}
        if point.failure is not None:
            return {**answer, "failure": point.failure}
        gradient = self.outer.flatten(point.gradient()).detach()
        answer |= {"loss": point.loss.detach().clone(), "gradient": gradient}
        if curved:
            unit_vectors = self.outer.unflatten(torch.eye(self.outer.size).to(gradient))
            answer["hessian"] = self.outer.flatten(point.hvp(unit_vectors)).detach()
        return answer

    def products(self, number: int, params: Tensor, exact: bool, vectors: Tensor) -> Message:
        """Products of the Hessian at a point with vectors. Shapes: (k, p) → (k, p)."""
        point = self._known(number, params, exact)
        return {"products": self.outer.flatten(point.hvp(self.outer.unflatten(vectors))).detach()}

    def check(self, number: int) -> Message:
        """Hold a point that was replayed against the model. Raises: ModelError."""
        if number in self.points:
            self.objective.check(self.points[number])
        return {}

    def forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.points.pop(number, None)
            self.remembered.pop(number, None)

    def memory(self) -> dict[int, tuple[Params, Params]]:
        """What another self can go on from: number → parameters and mode."""
        return self.remembered | {number: (point.params, point.inner) for number, point in self.points.items()}

    def keep(self, number: int, path: str) -> Message:
        """Write the mode at a point to a file; with the file's digest and how many rows of the plate it is of."""
        dims, arguments = {name: self.dim_of(name) for name in self.local}, self.digest()["arguments"]
        data = pack({"inner": self.memory()[number][1], "dims": dims, "arguments": arguments})
        self._write(Path(path), data)
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": self.size}

    def digest(self) -> Message:
        """Of the model's arguments here, and the rows of the plate."""
        if self._digest is None:
            self._digest = digest_arguments(self.program.arguments)
        return {"arguments": self._digest, "size": self.size}

    @property
    def size(self) -> int | None:
        """Rows of the shared plate that are the piece's; None where nothing stands in it."""
        plates = (plate for site in self.program.sites.values() for plate in site.plates)
        return next((plate.size for plate in plates if plate.name == self.whereabouts.plate), None)

    def restore(self, number: int, params: Tensor, inner: Params) -> Message:
        """Go on from a mode that was kept, as if the point were known."""
        place = self.outer.unflatten(params)
        self.remembered[number] = (place, inner)
        return {}

    def dim_of(self, name: str) -> int:
        """The dimension, from the left, that the shared plate has in a local tensor."""
        site = self.program.sites[name]
        dim = next(plate.dim for plate in site.plates if plate.name == self.whereabouts.plate)
        return dim + len(site.shape)

    def ending(
        self, number: int, params: Tensor, exact: bool, gaussian: Message | None, limiting: Params, full: bool
    ) -> Message:
        """Values and errors of all that is in the piece, the Gaussian of what is shared being known."""
        point = self._known(number, params, exact)
        objective, program = self.objective, self.program
        with objective.evaluations.uncounted():
            half_log_determinant, whole = 0.0, None
            if gaussian is not None:
                whole = self._gaussian(point, gaussian)
                if whole.inner is not None:
                    half_log_determinant = 0.5 * float(whole.inner.factor.log_determinant())
            values = objective.values(point.params)
            verdict = Verdict(None, float("nan"), point.value, limiting=limiting)
            known = self.known = find_uncertainty(objective, whole, [], values, verdict, full)
        conditional: Params = {}
        if whole is not None and whole.inner is not None:
            own, variances = whole.inner.coordinates, whole.inner.factor.inverse_diagonal()
            conditional = {name: variances[own.numbers(name)] for name in own.names}
        reading = known.reading
        return {
            "values": values,
            "params": {name: program.unconstrained(name).detach().clone() for name in program.sites},
            "std_errors": known.std_errors,
            "lower": known.lower,
            "upper": known.upper,
            "derived": {name: list(pair) for name, pair in known.derived.items()},
            "conditional": conditional,
            "unread": program.unread,
            "half_log_determinant": half_log_determinant,
            "remarks": known.remarks,
            "observations": 0 if reading is None else reading.observations,
            "factors": {} if reading is None else reading.factors,
            "sums": [] if reading is None else reading.sums,
            "dims": {name: self.dim_of(name) for name in program.sites if self._is_in_plate(name)},
        }

    def _is_in_plate(self, name: str) -> bool:
        """Whether a site stands in the shared plate, held ones included."""
        return any(plate.name == self.whereabouts.plate for plate in self.program.sites[name].plates)

    def _gaussian(self, point: Point, gaussian: Message) -> Gaussian:
        """The Gaussian of what is shared, with what is the piece's own given that."""
        held, parked, unused = gaussian["held"], gaussian["parked"], gaussian["unused"]
        factor = Dense(gaussian["hessian"]).held(held).factor()
        outer = Gaussian(self.outer, point.params, factor, held, parked, unused, gaussian["flat"], gaussian["scale"])
        posterior = self.objective.posterior(point)
        if posterior is None:
            return outer
        latents = Coordinates.of(point.inner, posterior.names)
        sensitive = self.outer.size * latents.size <= SENSITIVITY_LIMIT
        sensitivity = posterior.find_sensitivity() if sensitive else posterior.sensitivity
        inner = Conditional(latents, posterior.factor, sensitivity)
        return replace(outer, params={**point.params, **point.inner}, inner=inner)

    def _known(self, number: int, params: Tensor, exact: bool) -> Point:
        """A point that was asked for; evaluated again where an earlier self has known it."""
        if number not in self.points:
            place, inner = self.remembered[number]
            self._go_on_from(place, inner)
            point = self.objective.at_full(place) if exact else self.objective.at(place)
            self.points[number] = point
        return self.points[number]

    def _go_on_from(self, params: Params, inner: Params) -> None:
        if inner:
            self.objective.resume_from(params, inner)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
