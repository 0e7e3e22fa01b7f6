"""The lock of a run directory: the operating system's, so that a killed run leaves none; it says who holds it."""

from __future__ import annotations

import errno
import os
import platform
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RunDirectoryError
from ..record import LOCK

try:
    import fcntl
except ImportError:  # Windows, where filelock tells a lock that is held from one that cannot be had
    fcntl = None  # type: ignore[assignment]

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A lock file that is a link, or a pipe, is neither followed nor waited for."""

LONGEST = 400
"""Bytes of a holder's name that are read."""


class Taken(RunDirectoryError):
    """Another run has the directory: another may be taken."""


def locked(path: Path) -> FileLock:
    """Lock a run directory. Raises: Taken where another holds it, RunDirectoryError where it cannot be locked."""
    lock = FileLock(str(path / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        why = _refusal(path / LOCK)
        if why is not None:
            raise RunDirectoryError(f"{path} cannot be locked: {why}. Choose a --run-dir on a local disk") from error
        raise Taken(f"{path} is in use by {_holder(path / LOCK)}") from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from error
    with suppress(OSError):  # a courtesy
        _write(path / LOCK, f"{os.getpid()} {platform.node()}")
    return lock


def _refusal(path: Path) -> str | None:
    """Why the file system does not lock a file at all, as some network ones; None where it does, and it is held."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in (errno.EAGAIN, errno.EACCES) else error.strerror
    finally:
        os.close(handle)
    return None


def _write(path: Path, holder: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | NO_LINK)
    try:
        os.write(handle, holder.encode())
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    """Who wrote its name into the lock; a process that is gone has lost it to one that has not written yet."""
    try:
        handle = os.open(path, os.O_RDONLY | NO_LINK)
        try:
            words = os.read(handle, LONGEST).decode("utf-8", "replace").split()
        finally:
            os.close(handle)
    except OSError:
        return "another run"
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isprintable():
        return "another run"
    pid, host = words
    if host == platform.node() and not _lives(int(pid)):
        return "another run"
    return f"another run, process {pid} on {host}"


def _lives(pid: int) -> bool:
    if os.name == "nt":  # there the call would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True
