"""The points at which a process changes its files: numbered, so that something can happen at each.

Python's own functions are wrapped, so that no other program is needed; a file's content is written in two halves, with
a point before each. `strace` sees the same from outside (`test_system_calls.py`).
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

At = Callable[[int, str, str], None]
"""What happens before a point: its number, its name, and the path that it is about."""


def log(folder: str, to: str) -> None:
    """Write a line a point to a file."""

    def at(number: int, name: str, path: str) -> None:
        handle = REAL["open"](to, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(handle, (json.dumps([name, path]) + "\n").encode())
        os.close(handle)

    watch(folder, at)


def kill(folder: str, when: int) -> None:
    """End the process before that point, as a loss of power does."""

    def at(number: int, name: str, path: str) -> None:
        if number == when:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(folder, at)


def fail(folder: str, when: int, errno: int, for_good: bool) -> None:
    """Let the disk fail at a point, or from there on."""

    def at(number: int, name: str, path: str) -> None:
        if number == when or (for_good and number > when):
            raise OSError(errno, os.strerror(errno), path)

    watch(folder, at)


REAL: dict[str, Callable[..., Any]] = {
    name: getattr(os, name) for name in ("open", "fsync", "replace", "unlink", "mkdir")
}


def watch(folder: str, at: At) -> None:
    """Let ``at`` be called before every change below a folder, from now on."""
    number = -1

    def point(name: str, path: Any) -> None:
        nonlocal number
        text = os.path.abspath(os.fspath(path))
        if text == folder or text.startswith(folder + os.sep):
            number += 1
            at(number, name, text)

    def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_CREAT | os.O_TRUNC):
            point("open", path)
        return int(REAL["open"](path, flags, *rest, **more))

    def synced(handle: int) -> None:
        point("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        REAL["fsync"](handle)

    def replaced(before: Any, after: Any, **more: Any) -> None:
        point("rename", before)
        REAL["replace"](before, after, **more)

    def removed(path: Any, **more: Any) -> None:
        point("unlink", path)
        REAL["unlink"](path, **more)

    def made(path: Any, *rest: Any, **more: Any) -> None:
        if not os.path.isdir(path):
            point("mkdir", path)
        REAL["mkdir"](path, *rest, **more)

    real_open = io.open

    def opened_file(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, *rest, **more)
        if isinstance(file, int):
            return Halves(real_open(file, mode, *rest, **more), os.readlink(f"/proc/self/fd/{file}"), point)
        point("open", file)
        return Halves(real_open(file, mode, *rest, **more), os.fspath(file), point)

    instead = {"open": opened, "fsync": synced, "replace": replaced, "unlink": removed, "mkdir": made}
    for name, function in instead.items():
        setattr(os, name, function)
    io.open = builtins.open = opened_file


class Halves:
    """A file whose content goes to the system in two halves."""

    def __init__(self, file: Any, path: str, point: Callable[[str, Any], None]) -> None:
        self._file, self._path, self._point = file, path, point

    def write(self, content: Any) -> int:
        half = len(content) // 2
        for part in (content[:half], content[half:]):
            self._point("write", self._path)
            self._file.write(part)
            self._file.flush()
        return len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Halves:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def about_checkpoints(log: Path) -> list[int]:
    """The points at which a checkpoint is opened or written, the last first."""
    found = [n for n, (call, path) in enumerate(read_log(log)) if call in ("open", "write") and "checkpoint" in path]
    return found[::-1]


def read_log(path: Path) -> list[tuple[str, str]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]
