"""bootstrap.csv: a row a refit, appended and flushed, so that an interrupted run is gone on with.

The row of draw 0 is the fit itself: it tells whether the draws that are there are of this fit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose, isfinite
from pathlib import Path
from typing import IO

from ..errors import RunDirectoryError, refusals_told
from ..record import as_csv
from ..run.files import write_whole

HEAD = ("draw", "seed", "status", "converged", "loss")
SAME = 1e-8
"""How near, relative, what is in the file must be to the fit: it is written to 17 digits, and polished anew."""


@dataclass(frozen=True)
class Draw:
    """A refit: ``values`` by label, none where it gave none."""

    number: int
    status: str
    converged: bool
    loss: float | None
    values: Mapping[str, float]


class DrawsFile:
    """The file, open for more rows; ``draws`` are those there are by number, 0 left out.

    Raises: RunDirectoryError where the file is of another fit or seed, is damaged, or cannot be written.
    """

    def __init__(self, path: Path, labels: Sequence[str], seed: int, fit: Draw, overwrite: bool = False) -> None:
        self.path, self.labels, self.seed = path, list(labels), seed
        self.draws: dict[int, Draw] = {}
        lines: list[list[object]] = [[*HEAD, *self.labels], self._cells(fit)]
        if path.exists() and not overwrite:
            self._read(fit)
            lines += map(self._cells, self.draws.values())
        # Anew, and whole: without a row that was torn when the process was killed.
        with refusals_told(path):
            write_whole(path, as_csv(lines).encode())
            self._file: IO[bytes] = path.open("ab")

    def add(self, draw: Draw) -> None:
        """Raises: RunDirectoryError."""
        self.draws[draw.number] = draw
        with refusals_told(self.path):
            self._file.write(as_csv([self._cells(draw)]).encode())
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _cells(self, draw: Draw) -> list[object]:
        numbers = [draw.values.get(label) for label in self.labels]
        seed = "" if draw.number == 0 else self.seed
        head: list[object] = [draw.number, seed, draw.status, int(draw.converged), _written(draw.loss)]
        return [*head, *map(_written, numbers)]

    def _read(self, fit: Draw) -> None:
        try:
            text = self.path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            rows = list(csv.DictReader(io.StringIO(whole, newline="")))
            found = [_draw(row, self.labels) for row in rows]
            seeds = {row["seed"] for row in rows if row["seed"]}
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunDirectoryError(
                f"{self.path} is no file of draws of this fit ({error}): --overwrite begins anew"
            ) from error
        if not found:
            return
        if not _is_same(found[0], fit):
            raise RunDirectoryError(f"{self.path} holds draws of another fit than this run's: --overwrite begins anew")
        if seeds - {str(self.seed)}:
            there = ", ".join(sorted(seeds))
            raise RunDirectoryError(
                f"{self.path} holds draws of seed {there}: --seed {there} goes on with them, --overwrite begins anew"
            )
        self.draws = {draw.number: draw for draw in found[1:]}


def _draw(row: Mapping[str, str], labels: Sequence[str]) -> Draw:
    if None in row.values() or None in row:
        raise ValueError("a row is torn")
    values = {label: float(row[label]) for label in labels if row[label]}
    loss = float(row["loss"]) if row["loss"] else None
    return Draw(int(row["draw"]), row["status"], row["converged"] == "1", loss, values)


def _is_same(one: Draw, other: Draw) -> bool:
    if one.number != 0 or one.values.keys() != other.values.keys() or one.loss is None or other.loss is None:
        return False
    pairs = [(one.loss, other.loss), *((one.values[label], other.values[label]) for label in one.values)]
    return all(isclose(*pair, rel_tol=SAME, abs_tol=SAME) for pair in pairs)


def _written(number: float | None) -> str | None:
    return format(number, ".17g") if number is not None and isfinite(number) else None
