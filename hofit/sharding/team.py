"""Who answers for the pieces: one process in turn, or many at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .message import Message, pack, unpack
from .piece import Piece

Each = Callable[[int], Message]
"""What a question has more for each piece, by its number."""


OF_REPLAYS = ("check",)
"""What is asked of replays of a model: what is built anew for every question has none."""

LARGE = 10_000
"""Rows from which on a piece is not left to the collector: its points and objectives refer to each other."""


class Team(Protocol):
    """All pieces of the data. The first is that of the process that leads."""

    @property
    def own(self) -> Piece: ...

    @property
    def size(self) -> int: ...

    @property
    def communicated(self) -> int:
        """Bytes that went between processes."""

    @property
    def comes_back(self) -> bool:
        """Whether a point that is asked for again costs as much again: a piece is built anew for every question."""

    def ask(self, what: str, content: Message, each: Each | None = None) -> list[Message]:
        """What every piece answers, in their order.

        Raises: what a piece raises; PieceLost where one does not answer.
        """

    def count_once(self, names: list[str]) -> None:
        """Say which sites the first piece counts for all."""

    def forget(self, numbers: list[int]) -> None:
        """Say that points are asked for no more."""


@dataclass
class Chunks:
    """Pieces of which but one is in memory beside the first: each is built, asked, and left with what it remembers.

    ``open_piece`` builds one by its number, inside the scope that it needs; ``folder`` keeps what they remember.
    """

    own: Piece
    size: int
    open_piece: Callable[[int], AbstractContextManager[Piece]]
    folder: Path
    communicated: int = 0
    comes_back: bool = True
    _elsewhere: Message | None = None

    def ask(self, what: str, content: Message, each: Each | None = None) -> list[Message]:
        if what in OF_REPLAYS:
            return [self.own.answer(what, content)] + [{}] * (self.size - 1)
        answers = []
        for number in range(self.size):
            whole = {**content, **(each(number) if each is not None else {})}
            answers.append(self.own.answer(what, whole) if number == 0 else self._asked(number, what, whole))
        return answers

    def count_once(self, names: list[str]) -> None:
        self._elsewhere = {"names": names}

    def forget(self, numbers: list[int]) -> None:
        self.own.forget(numbers)
        for number in numbers:
            for piece in range(1, self.size):
                self._file(piece, number).unlink(missing_ok=True)

    def _asked(self, number: int, what: str, content: Mapping[str, object]) -> Message:
        points = [content[key] for key in ("number", "near", "recalled") if isinstance(content.get(key), int)]
        files = {point: self._file(number, point) for point in points if isinstance(point, int)}
        with self.open_piece(number) as piece:
            if self._elsewhere is not None:
                piece.answer("count_elsewhere", self._elsewhere)
            for point, file in files.items():
                if file.exists():
                    kept = unpack(file.read_bytes())
                    piece.remembered[point] = kept["params"], kept["inner"]
            answer = piece.answer(what, dict(content))
            for point, (params, inner) in piece.memory().items():
                if not self._file(number, point).exists():
                    self._file(number, point).write_bytes(pack({"params": params, "inner": inner}))
            large = max(piece.whereabouts.lengths, default=0) >= LARGE
        del piece
        if large:
            gc.collect()
        return answer

    def _file(self, piece: int, point: int) -> Path:
        return self.folder / f"{piece}-{point}"
