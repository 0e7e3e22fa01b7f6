"""What the model says at each draw: the log density of every observation, and data drawn anew.

The model is traced twice a draw, once with its data and once without: that may take a while for a large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import HofitError, ModelError
from ..model.predictive import Dims, Scored
from ..model.program import Program
from ..model.randomness import random_state_kept, set_seed
from ..model.sites import InfeasibleError
from ..objective.leaves import Leaves
from ..point import Params

NUMBERS = 2**27
"""Numbers that are kept of all draws at most: 1 GB."""


@dataclass(frozen=True)
class Drawn:
    """Of the draws at which the model can be computed, which ``kept`` counts out.

    ``likelihood``, ``replicated`` and ``deterministic`` have a first dimension of draws, ``observed`` has not; the dims
    are those of the others.
    """

    kept: Tensor
    likelihood: Params
    replicated: Params
    deterministic: Params
    observed: Params
    likelihood_dims: Mapping[str, Dims]
    observed_dims: Mapping[str, Dims]
    deterministic_dims: Mapping[str, Dims]
    remarks: list[str] = field(default_factory=list)


def at_draws(program: Program, draws: Params, likelihood: Sequence[str], seed: int) -> Drawn:
    """What the model says at unconstrained draws, (n, *shape) each. Use inside ``program.scope()``.

    Raises: HofitError where it can be computed at none, or would not fit into memory; ModelError.
    """
    count = len(next(iter(draws.values())))
    kept: list[int] = []
    likelihoods: list[Params] = []
    copies: list[Params] = []
    derived: list[Params] = []
    first: Scored | None = None
    remarks: list[str] = []
    with _leaves_kept(program) as leaves, random_state_kept():
        set_seed(seed)
        for number in range(count):
            leaves.write({name: drawn[number] for name, drawn in draws.items()})
            try:
                score = program.scored(likelihood)
                copy = {} if remarks else _copy(program, score, remarks)
            except InfeasibleError:
                continue
            if not all(bool(torch.isfinite(entries).all()) for entries in score.likelihood.values()):
                continue
            if first is None:
                _check_size(score, copy, count)
                first = score
            kept.append(number)
            likelihoods.append(score.likelihood)
            copies.append(copy)
            derived.append(score.deterministic)
    if first is None:
        raise HofitError(f"the model can be computed at none of {count} draws: the Gaussian at the mode is far off")
    if len(kept) < count:
        remarks.append(f"{count - len(kept)} of {count} draws are left out: the data's density is no number there")
    return Drawn(
        torch.tensor(kept),
        _stacked(likelihoods),
        {} if any(not copy for copy in copies) else _stacked(copies),
        _stacked(derived),
        first.observed,
        first.likelihood_dims,
        first.observed_dims,
        first.deterministic_dims,
        remarks,
    )


@contextmanager
def _leaves_kept(program: Program) -> Iterator[Leaves]:
    """A writer of the program's leaves; they are put back on leaving: a module's weights are the module's own."""
    before = {name: leaf.detach().clone() for name, leaf in program.leaves.items()}
    leaves = Leaves(program.leaves)
    try:
        yield leaves
    finally:
        leaves.write(before)


def _copy(program: Program, score: Scored, remarks: list[str]) -> Params:
    """Data drawn anew, once there are any; a model that cannot draw them has none, which is remarked."""
    try:
        return program.replicated(list(score.observed)) if score.observed else {}
    except ModelError as error:
        remarks.append(f"no data could be drawn from the model: {str(error).splitlines()[0]}")
        return {}


def _check_size(score: Scored, copy: Params, count: int) -> None:
    parts: list[Params] = [score.likelihood, copy, score.deterministic]
    each = sum(value.numel() for part in parts for value in part.values())
    if each * count > NUMBERS:
        fewer = NUMBERS // each
        advice = f"take --draws {fewer} at most" if fewer > 1 else "the draws alone (.csv, .parquet) need none of them"
        raise HofitError(f"{count} draws of {each} numbers of the data are more than memory is taken for: {advice}")


def _stacked(draws: list[Params]) -> Params:
    return {name: torch.stack([one[name] for one in draws]) for name in draws[0]}
