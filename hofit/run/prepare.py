"""A session, ready for the first step, with all that surrounds it: on the whole data or on pieces of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..config.mistakes import Mistakes
from ..config.schema import Config
from ..sharding.ranks import world
from .environment import environment
from .session import Builder, Request, Session
from .shards import in_pieces


@contextmanager
def prepared(request: Request, config: Config, mistakes: Mistakes) -> Iterator[Session]:
    """A session, with the environment it needs around it.

    Raises: ConfigError with every mistake; ModelError or DataError when that is the only thing wrong.
    """
    if config.shard is None and world().size > 1:
        raise mistakes.error(
            ("shard",),
            f"torchrun has started {world().size} processes, and nothing says how they share the data: write "
            "shard: {plate: NAME, by: COLUMN}, or start one process",
        )
    with environment(config):
        if config.shard is not None:
            with in_pieces(request, config, mistakes) as session:
                yield session
            return
        builder = Builder(request, config, mistakes)
        with builder.program.scope():
            yield builder.session()
