"""The pictures that there are of runs, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RunDirectoryError, refusals_told
from .canvas import Picture, render
from .caterpillar import caterpillar_picture
from .forest import forest_picture
from .profile import profile_picture
from .progress import progress_picture
from .residuals import residuals_picture
from .run import Run
from .shrinkage import shrinkage_picture

OF_ONE_RUN = (forest_picture, caterpillar_picture, shrinkage_picture, profile_picture, residuals_picture)


@dataclass(frozen=True)
class Written:
    """A picture's two files."""

    name: str
    png: Path
    svg: Path
    notes: Sequence[str]


def pictures_of(runs: Sequence[Run]) -> list[Picture]:
    """The progress of all runs in one picture, then each run's own; among several, under the run's label.

    Raises: RunDirectoryError where a fit.json is damaged.
    """
    found = [progress_picture(runs)]
    for run in runs:
        try:
            own = [make(run) for make in OF_ONE_RUN]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunDirectoryError(f"{run.path} holds a damaged fit.json: {error}") from error
        if len(runs) > 1:
            own = [one and replace(one, name=f"{one.name}-{run.label}") for one in own]
        found += own
    return [one for one in found if one is not None]


def write_pictures(pictures: Sequence[Picture], out: Path) -> list[Written]:
    """A PNG and an SVG of each picture, in a directory that is made where it is not there.

    Raises: HofitError without matplotlib, RunDirectoryError where the disk does not take them.
    """
    drawn = [(one, render(one, "png", "svg")) for one in pictures]
    written = []
    with refusals_told(f"--out {out}"):
        out.mkdir(parents=True, exist_ok=True)
        for picture, (png, svg) in drawn:
            files = Written(picture.name, out / f"{picture.name}.png", out / f"{picture.name}.svg", picture.notes)
            files.png.write_bytes(png)
            files.svg.write_bytes(svg)
            written.append(files)
    return written
