"""hofit with one of its guards switched off: whoever does not notice proves nothing.

Each has the name of a guard, what is put in its place, and why a harness must fail. ``apply`` is called in the process
that is to be the mutant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from hofit.fitting.interruption import Interruption
from hofit.record import CHECKPOINT, CONFIG
from hofit.run.checkpoint import write_checkpoint


@dataclass(frozen=True)
class Mutant:
    """``target`` is module:name, perhaps with a dot; ``instead`` what stands there in its place."""

    target: str
    instead: Any


def apply(name: str) -> None:
    """Be this mutant from now on."""
    owner, attribute = _place(MUTANTS[name].target)
    assert hasattr(owner, attribute), f"{name}: there is no {MUTANTS[name].target}"
    setattr(owner, attribute, MUTANTS[name].instead)


@contextmanager
def applied(name: str) -> Iterator[None]:
    """Inside, this process is the mutant."""
    owner, attribute = _place(MUTANTS[name].target)
    before = owner.__dict__[attribute]
    apply(name)
    try:
        yield
    finally:
        setattr(owner, attribute, before)


def setup(name: str) -> list[Any]:
    """As ``Server.start`` takes it."""
    return ["tests.trust.mutants:apply", name]


def _place(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = import_module(module)
    for name in owners:
        owner = getattr(owner, name)
    return owner, attribute


def write_naively(directory: Path, snapshot: Any, provenance: Any, keep: int = 2) -> Path:
    """A checkpoint as trainers write them: over the one before."""
    with TemporaryDirectory() as elsewhere:
        content = write_checkpoint(Path(elsewhere), snapshot, provenance, keep).read_bytes()
    with (directory / CHECKPOINT).open("wb") as file:
        file.write(content)
    return directory / CHECKPOINT


def write_unsynced(path: Path, content: bytes) -> Path:
    """A temporary that may be empty after a loss of power, whatever its name is by then."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
    return temporary


def write_in_place(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())


def no_lock(path: Path) -> Any:
    return SimpleNamespace(release=nothing)


def stay_open(directory: Any) -> None:
    """Let go of the directory, and not of the lock."""
    LEFT_OPEN.append(directory)
    directory._lock.release()
    LEFT_OPEN.append(os.open(directory.path / CONFIG, os.O_RDONLY))


LEFT_OPEN: list[Any] = []


def nothing(*arguments: Any, **more: Any) -> None:
    """Does nothing, whatever it is asked."""


def write_or_not(path: Path, content: bytes) -> Path:
    """A temporary, or what can be had of one."""
    try:
        return write_unsynced(path, content)
    except OSError:
        return path.with_name(path.name + ".tmp")


MUTANTS = {
    "a naive writer": Mutant("hofit.run.recorder:write_checkpoint", write_naively),
    "rows are kept that will come again": Mutant("hofit.run.resume:drop_rows_after", lambda path, iteration: 0),
    "counts begin anew": Mutant("hofit.point:Evaluations.restore", nothing),
    "the optimizer begins anew": Mutant("hofit.optim.mixed:MixedMultiOptimizer.load_state_dict", nothing),
    "no content is synced": Mutant("hofit.run.checkpoint:write_temporary", write_unsynced),
    "no name is synced": Mutant("hofit.run.checkpoint:fsync_directory", nothing),
    "no directory's name is synced": Mutant(
        "hofit.run.directory:make_directory", lambda path: path.mkdir(parents=True, exist_ok=True)
    ),
    "a fault of the disk is let through": Mutant("hofit.run.finish:disk_errors_told", lambda path: nullcontext()),
    "a fault of the disk is swallowed": Mutant("hofit.run.checkpoint:write_temporary", write_or_not),
    "a verdict is waited for": Mutant("hofit.fitting.interruption:Interruption.at_once", lambda self: nullcontext()),
    "nobody asks for a checkpoint": Mutant("hofit.fitting.interruption:Interruption.ask_to_keep", nothing),
    "no handlers": Mutant("hofit.run.fit:interruption_noted", lambda: nullcontext(Interruption())),
    "no lock": Mutant("hofit.run.directory:locked", no_lock),
    "no digest": Mutant("hofit.run.checkpoint:_digest", lambda text, tensors: ""),
    "forms are not compared": Mutant("hofit.run.resume:_verify_session", nothing),
    "files are not compared": Mutant("hofit.run.resume:_verify_files", nothing),
    "a directory stays open": Mutant("hofit.run.directory:RunDirectory.close", stay_open),
    "files are written in place": Mutant("hofit.run.directory:write_whole", write_in_place),
}
