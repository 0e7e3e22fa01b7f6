"""A bar on the terminal while something takes long: how far it is, and the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(what: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Gives what is to be told how many are done, of how many, and what comes next.

    The bar is on standard error, and only where that is a terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, count, label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, count, label: progress.update(
            task, completed=done, total=count, description=f"{what}: {label}" if label else what
        )
