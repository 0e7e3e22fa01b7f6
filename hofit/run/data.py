"""The model that a run asks for, and the data for its arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..config.mistakes import Mistakes
from ..config.schema import Config
from ..errors import DataError, ModelError
from ..model.arguments import call_load_data, merge, to_tensors
from ..model.columns import Arguments, columns_to_arguments
from ..model.module import ModelSource, load_model, sha256_of_file
from ..model.parts import part_paths, read_parts
from ..model.pieces import Pieces, share_out

NOT_AN_INDEX = r"(?i)\bind(ex|ices)\b.*\b(long|int32|int64|integer)|\b(long|int64|integer).*\bind(ex|ices)\b"
"""What torch says where a floating tensor stands for an index."""


@dataclass(frozen=True)
class Data:
    """A model's arguments, and path → SHA-256 of the files that they were read from.

    ``warnings`` are sentences for the user; ``floating`` names columns of whole numbers that are floating arguments.
    ``levels`` gives the levels of an argument that is codes.
    """

    arguments: dict[str, Any]
    files: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    floating: list[str] = field(default_factory=list)
    levels: dict[str, Callable[[], list[object]]] = field(default_factory=dict)

    def hint(self, error: ModelError) -> ModelError:
        """The error, with the edit that helps where the model took a floating column for an index."""
        if not self.floating or not re.search(NOT_AN_INDEX, str(error)):
            return error
        names = ", ".join(map(repr, self.floating))
        return type(error)(
            f"{error}\nAn index must be an integer tensor, and the column {names} became floating: "
            "write {column: NAME, dtype: long} for what is used as an index (or codes: true for levels)"
        )


@dataclass
class Share:
    """Which piece of how many is loaded, and how the table is shared out once that is known.

    ``plate`` is the one whose rows are shared out, ``lengths`` are those of the piece's own arrays.
    """

    piece: int
    count: int
    plate: str | None
    by: str | None
    pieces: Pieces | None = None
    lengths: frozenset[int] = frozenset()
    is_first_look: bool = True
    """Whether the files were not read before in this process: their digests are known then."""

    @property
    def groups(self) -> int | None:
        """How many levels of the column number the rows of the plate here; None where no column does."""
        return None if self.pieces is None else self.pieces.groups(self.piece)

    def other(self, piece: int) -> Share:
        """The same of another piece."""
        return replace(self, piece=piece, is_first_look=False)


def find_model(model: Callable[..., Any] | str | None) -> ModelSource:
    """A model by reference, or one that was given from Python.

    Raises: ModelError when there is none, or it is nothing that can be called.
    """
    if model is None:
        raise ModelError("no model: name one on the command line, or with the key `model` of the config")
    if isinstance(model, str):
        return load_model(model)
    if isinstance(model, type) or not callable(model):
        raise ModelError(f"a model is a function, a PyroModule instance or a path, not {model!r:.60}")
    return ModelSource(model, getattr(model, "__name__", type(model).__name__))


def load_data(
    config: Config, source: ModelSource, given: Mapping[str, Any], mistakes: Mistakes, share: Share | None = None
) -> Data:
    """The arguments from load_data, from columns of the table, from the config and from Python, merged.

    With ``share``, those of one piece of the data.

    Raises: DataError for the last thing wrong; the wrong columns before it are among the mistakes.
    """
    data = config.data
    path = None if data.path is None else Path(data.path)
    parts: list[tuple[str, Mapping[str, Any]]] = []
    if source.load_data is not None:
        options = data.options if share is None else _of_piece(source.load_data, data.options, share)
        parts.append(("load_data", call_load_data(source.load_data, options, path)))
    elif data.options:
        raise DataError(
            "there is no load_data in the model's module to take them: leave them out, or write def load_data(…) there",
            ("data", "options"),
        )
    made = Arguments()
    read = [] if path is None or not (share is None or share.is_first_look) else part_paths(path)
    files = {str(part): sha256_of_file(part) for part in read if part.is_file()}
    if data.columns:
        if path is None:
            raise DataError(
                "data.columns needs data.path: write path: FILE.csv beside it, or give --data FILE.csv",
                ("data", "columns"),
            )
        made = _columns(path, config, share)
        for error in made.errors[:-1]:
            mistakes.add(error.key, str(error))
        if made.errors:
            raise made.errors[-1]
        parts.append(("data.columns", made.values))
    elif path is not None and not (source.load_data and "path" in inspect.signature(source.load_data).parameters):
        raise DataError("nothing reads it: name data.columns, or let load_data take `path`", ("data", "path"))
    parts += [("data.arguments", data.arguments), ("Python", given)]
    if share is not None and given:
        raise DataError("arguments from Python are whole: a fit in pieces takes a table, or a load_data", ("shard",))
    arguments = to_tensors(merge(parts), torch.device(config.device))
    if share is not None:
        own = {name: value for where, some in parts if where != "data.arguments" for name, value in some.items()}
        sizes = (len(arguments[name]) for name in own if getattr(arguments[name], "ndim", 0))
        share.lengths = frozenset(sizes)
    return Data(arguments, files, made.warnings, made.floating, made.levels)


def _columns(path: Path, config: Config, share: Share | None) -> Arguments:
    """The arguments from columns of the table, of one piece with ``share``."""
    data = config.data
    try:
        if share is None:
            return columns_to_arguments(read_parts(path), data.columns, data.missing)
        if share.pieces is None:
            share.pieces = share_out(path, data.columns, share.by, data.missing, share.count)
        return share.pieces.arguments(share.piece)
    except DataError as error:
        raise DataError(str(error), error.key if error.key != ("data",) else ("data", "path")) from error


def _of_piece(load: Callable[..., Any], options: Mapping[str, Any], share: Share) -> dict[str, Any]:
    """The options of a load_data that loads one piece. Raises: DataError where it does not take them."""
    if not {"rank", "world_size"} <= set(inspect.signature(load).parameters):
        raise DataError(
            "load_data loads all of the data in each piece: let it take `rank` (which piece, from 0) and `world_size` "
            "(of how many) and load its own groups, or give a table (data.path and data.columns)",
            ("shard",),
        )
    return {**options, "rank": share.piece, "world_size": share.count}
