"""A run directory: one run at a time, files that appear whole, rows that are flushed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..config.source import dump_yaml
from ..errors import DiskError, RunDirectoryError, refusals_told
from ..record import CHECKPOINT, CONFIG, EVENTS, LOCK, OWN_FILES, json_text
from .files import make_directory, write_whole
from .lock import Taken, locked


class RunDirectory:
    """The directory of one run, locked by the operating system while it is open: a killed run leaves no lock.

    Raises: RunDirectoryError when it holds a run already (unless ``overwrite``) or another process is using it.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> RunDirectory:
        """Take a new or empty directory; with ``overwrite``, one that holds a run."""
        refuse_taken(path, overwrite)
        with refusals_told(path):
            make_directory(path)
        directory = cls(path, locked(path))
        if not overwrite and (refusal := _taken(path)):  # another run was quicker
            directory.close()
            raise Taken(f"{refusal}: choose another --run-dir")
        try:
            with refusals_told(path):
                for entry in path.iterdir():
                    if entry.name in OWN_FILES or entry.name.startswith(("checkpoint", "piece-", "estimates-", EVENTS)):
                        entry.unlink()
        except RunDirectoryError:
            directory.close()
            raise
        return directory

    @classmethod
    def next_free(cls, parent: Path, stem: str) -> RunDirectory:
        """``parent/stem``, or with -2, -3 … the first that is free."""
        number = 1
        while True:
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                return cls.create(path)
            except Taken:
                number += 1

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Take a directory that holds a run, to go on with it."""
        check_is_directory(path)
        return cls(path, locked(path))

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, name: str, text: str) -> None:
        """Write one of the run's files."""
        write_whole(self.path / name, text.encode())

    def write_config(self, config: Mapping[str, Any]) -> None:
        """The first file of a run. Raises: RunDirectoryError where the disk does not take it."""
        with refusals_told(self.path):
            self.write(CONFIG, dump_yaml(dict(config)))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files; what is not finite becomes null."""
        self.write(name, json_text(content))


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Inside, a run goes on that a full or failing disk would end. Raises: DiskError."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written ({error.strerror or error}): what was written before stands; "
            f"`hofit resume {path}` goes on from its newest checkpoint, if there is one"
        ) from error


def check_is_directory(path: Path) -> None:
    """Raises: RunDirectoryError where there is no directory, and so no run."""
    if not path.is_dir():
        raise RunDirectoryError(f"no run directory {path}")


def refuse_taken(path: Path, overwrite: bool = False) -> None:
    """Raises: RunDirectoryError where a new run cannot go."""
    refusal = _taken(path)
    if refusal and not (overwrite and path.is_dir()):
        raise Taken(f"{refusal}: choose another --run-dir, or --overwrite")


def _taken(path: Path) -> str | None:
    """Why a new run cannot go to ``path``; None if it can."""
    if not path.exists():
        return None
    if not path.is_dir():
        return f"{path} is a file, not a directory"
    held = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
    if not held:
        return None
    if any(name in OWN_FILES or name == CHECKPOINT for name in held):
        return f"{path} holds a run already"
    return f"{path} is not empty ({', '.join(held[:3])})"
