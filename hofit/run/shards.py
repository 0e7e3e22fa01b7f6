"""A session on data in pieces: chunk after chunk in one process, or one piece in each that torchrun has started."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..config.load import dump, validate
from ..config.mistakes import Mistakes
from ..config.schema import Config
from ..config.source import from_mapping
from ..errors import ModelError
from ..export.arviz import Labels
from ..fitting.loop import LoopEnd
from ..sharding.agreement import agreed
from ..sharding.gathered import Gathered, gathered
from ..sharding.message import Message
from ..sharding.objective import ShardedObjective
from ..sharding.piece import Piece, Whereabouts
from ..sharding.ranks import OPEN, Processes, Ranks, hear_of_others, world
from ..sharding.team import Chunks, Team
from ..uncertainty.gaussian import Gaussian
from .data import Share
from .environment import environment
from .files import write_whole
from .session import Builder, Request, Session

PROCESSES = Processes()
"""Those that torchrun has started with this one."""


@contextmanager
def in_pieces(request: Request, config: Config, mistakes: Mistakes) -> Iterator[Session]:
    """A session of the process that leads; its objective is the sum over all pieces. Use inside ``environment``.

    Raises: as ``prepared``; ModelError where the pieces do not agree on what they share.
    """
    shard = config.shard
    assert shard is not None
    _refuse_what_takes_all(request, config, mistakes)
    count = shard.chunks or world().size
    share = Share(0, count, shard.plate, shard.by)
    with ExitStack() as stack:
        if world().size > 1:
            PROCESSES.timeout = shard.timeout
            PROCESSES.connect()
            for other in range(1, count):
                PROCESSES.ask(other, OPEN, _fit_of(request, config))
        builder = Builder(request, config, mistakes, share)
        stack.enter_context(builder.program.scope())
        session = builder.session()
        own = _piece(session, share, builder.data.files)
        team: Team
        if world().size > 1:
            hear_of_others(PROCESSES)
            team = Ranks(own, PROCESSES)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hofit-")))
            team = Chunks(own, count, _opening(request, config, share), folder)
        once, remarks = agreed(team)
        team.count_once(once)
        objective = ShardedObjective(team, [_remark(session, share, count), *remarks])
        yield replace(
            session,
            objective=objective,
            start=objective.start(),
            gather=_gathering(session, objective),
            labels=lambda: _labels(session, share),
        )


def _labels(session: Session, share: Share) -> Labels:
    own = dict(session.labels())
    if share.pieces is not None and share.plate is not None and share.plate in own:
        own[share.plate] = share.pieces.level_words()
    return own


def _gathering(session: Session, objective: ShardedObjective) -> Callable[[LoopEnd, Gaussian | None], Gathered]:
    full = session.config.objective.uncertainty == "full"

    def gather(end: LoopEnd, gaussian: Gaussian | None) -> Gathered:
        hessian = None
        if gaussian is not None and end.verdict.hessian is not None:
            unit = gaussian.scale.new_zeros(len(gaussian.scale), len(gaussian.scale)).fill_diagonal_(1.0)
            hessian = end.verdict.hessian.matvec(unit)
        return gathered(objective, end.params, gaussian, hessian, end.verdict.limiting, full)

    return gather


def _opening(request: Request, config: Config, share: Share) -> Callable[[int], AbstractContextManager[Piece]]:
    return lambda number: _built(request, config, share.other(number))


@contextmanager
def _built(request: Request, config: Config, share: Share) -> Iterator[Piece]:
    """A piece by itself, inside surroundings like those of the fit."""
    with environment(config):
        builder = Builder(request, config, Mistakes(request.source, []), share)
        with builder.program.scope():
            yield _piece(builder.session(), share, builder.data.files)


def piece_of_fit(fit: Message) -> Iterator[Piece]:
    """The piece of this process, of a fit as the one that leads has told of it."""
    request = Request(from_mapping(fit["config"], "the config"), fit["model"])
    config, found = validate(request.source)
    if config is None or config.shard is None:
        raise ModelError("; ".join(found))
    at = world()
    with _built(request, config, Share(at.rank, at.size, config.shard.plate, config.shard.by)) as piece:
        yield piece


def _fit_of(request: Request, config: Config) -> Message:
    """What other processes must know of a fit."""
    assert config.shard is not None
    return {"config": dump(config), "model": request.model, "timeout": config.shard.timeout}


def _piece(session: Session, share: Share, files: dict[str, str]) -> Piece:
    by = None if share.pieces is None else share.pieces.by
    whereabouts = Whereabouts(share.plate, share.groups, share.lengths, by, files)
    return Piece(session.objective, session.local, whereabouts, write_whole)


def _remark(session: Session, share: Share, count: int) -> str:
    where = ("processes" if world().size > 1 else "chunks") if count > 1 else "piece"
    settled = session.local if session.objective.type != "marginal" else []
    found = f"pieces: the data are in {count} {where}"
    found += f", by {share.pieces.by!r}" if share.pieces is not None and share.pieces.by is not None else ""
    if settled:
        names = ", ".join(settled)
        found += f"; {names} {'is' if len(settled) == 1 else 'are'} settled by Newton's method in each, at every point"
    return found


def _refuse_what_takes_all(request: Request, config: Config, mistakes: Mistakes) -> None:
    shard = config.shard
    assert shard is not None
    at = world()
    if shard.chunks is not None and at.size > 1:
        text = f"chunks are for one process, and torchrun has started {at.size}: leave them out (-s shard.chunks=null)"
        raise mistakes.error(("shard", "chunks"), text)
    if at.size > 1 and callable(request.model):
        raise mistakes.error(("model",), "under torchrun a model is named by its file: other processes load it, too")
    if config.starts > 1:
        raise mistakes.error(("starts",), "several starts take the whole data: leave starts out, or shard")
    if config.objective.type == "elbo":
        raise mistakes.error(("objective",), "elbo has no pieces: take map, map_unconstrained or marginal")
