"""Files that appear whole or not at all, and survive a loss of power once they are there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""A temporary is a new file: no link that someone has put there is followed."""


def write_temporary(path: Path, content: bytes) -> Path:
    """The content beside where it shall be, on the disk. A temporary that a killed run left is put aside."""
    temporary = path.with_name(path.name + ".tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        with os.fdopen(os.open(temporary, EXCLUSIVE, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # half a file on a full disk keeps it full
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def write_whole(path: Path, content: bytes) -> None:
    """Temporary name, fsync, rename, fsync of the directory."""
    os.replace(write_temporary(path, content), path)
    fsync_directory(path.parent)


def make_directory(path: Path) -> None:
    """A directory with those above it, in each of which the name below survives."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        fsync_directory(one.parent)


def fsync_directory(directory: Path) -> None:
    """Let the names in it survive; where a system has no such thing, nothing."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
