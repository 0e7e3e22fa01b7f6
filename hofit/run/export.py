"""A run for other programs: its draws, or its mode, in the format that a file's name asks for."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, HofitError
from ..export.arviz import attributes, check_installed, inference_data, write_netcdf
from ..export.groups import groups_of
from ..export.starts import starts_of, store_of
from ..export.tables import columns, csv_of, write_parquet
from ..fitting.state import Snapshot
from ..status import Status
from ..uncertainty.errors import Uncertainty, find_uncertainty, gaussian_of
from ..verdict.judge import judge_end
from .directory import check_is_directory
from .files import write_temporary, write_whole
from .resume import ResumeRequest, reopened
from .session import Session

DRAWS = 1000
"""Where none are asked for."""


@dataclass(frozen=True)
class ExportRequest:
    """Which run, into which file; ``draws`` and ``seed`` None where they were not given."""

    run: ResumeRequest
    to: Path
    draws: int | None = None
    seed: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What a file holds, as words and as plain data; ``draws`` is None where it holds the mode."""

    path: Path
    holds: str
    draws: int | None
    remarks: list[str] = field(default_factory=list)
    contents: dict[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        about = {"path": str(self.path), "holds": self.holds, "draws": self.draws}
        return {**about, **self.contents, "remarks": self.remarks}


def run_export(request: ExportRequest) -> Exported:
    """Everything from the newest checkpoint of a run to the file."""
    write = _writer(request)
    check_is_directory(request.run.path)
    with ExitStack() as stack:
        checkpoint, _, session = reopened(stack, request.run)
        try:
            return write(request, session, checkpoint.snapshot)
        except OSError as error:
            raise ConfigError(f"--to {request.to}: it cannot be written: {error.strerror or error}") from error


def _writer(request: ExportRequest) -> Callable[[ExportRequest, Session, Snapshot], Exported]:
    """Who writes such a file. Raises: ConfigError for what can be told before the model is loaded."""
    to, kind = request.to, request.to.suffix.lower()
    if kind not in _WRITERS:
        raise ConfigError(f"--to {to}: a file's name ends with {', '.join(_WRITERS)}, by what it shall hold")
    if to.is_dir():
        raise ConfigError(f"--to {to}: this is a directory")
    if to.exists() and not request.overwrite:
        raise ConfigError(f"--to {to}: this file is there already: --overwrite replaces it")
    if not to.parent.is_dir():
        raise ConfigError(f"--to {to}: there is no directory {to.parent}")
    given = [f"--{name}" for name in ("draws", "seed") if getattr(request, name) is not None]
    if kind in OF_THE_MODE and given:
        raise ConfigError(f"{' and '.join(given)}: {kind} holds the mode, not draws; leave it out, or take .nc or .csv")
    if request.draws is not None and request.draws < 1:
        raise ConfigError(f"--draws {request.draws}: at least one")
    if request.seed is not None and not 0 <= request.seed < 2**32:
        raise ConfigError(f"--seed {request.seed}: from 0 to {2**32 - 1}")
    if kind == ".nc":
        check_installed()
    return _WRITERS[kind]


def _netcdf(request: ExportRequest, session: Session, snapshot: Snapshot) -> Exported:
    known, status = _uncertainty(session, snapshot)
    draws, seed = _asked(request)
    found = groups_of(known, session.program.sites, session.program, draws, seed)
    about = attributes(session.objective.type, status.word, seed, found.remarks)
    with _replaced(request.to) as temporary:
        write_netcdf(temporary, inference_data(found.groups, about, session.labels()))
    named = {group: list(variables) for group, variables in found.groups.items()}
    return Exported(request.to, f"ArviZ groups {', '.join(named)}", draws, found.remarks, {"groups": named})


def _table(request: ExportRequest, session: Session, snapshot: Snapshot) -> Exported:
    known, _ = _uncertainty(session, snapshot)
    draws, seed = _asked(request)
    drawn = known.draws(draws, seed)
    drawn = {name: drawn[name] for name in session.program.sites}
    if request.to.suffix.lower() == ".csv":
        write_whole(request.to, csv_of(drawn).encode())
    else:
        with _replaced(request.to) as temporary:
            write_parquet(temporary, drawn)
    named = columns(drawn)
    return Exported(request.to, f"a row a draw, {len(named)} numbers each", draws, [], {"columns": named})


def _store(request: ExportRequest, session: Session, snapshot: Snapshot) -> Exported:
    values = session.objective.values(snapshot.params)
    state, content = store_of(values, session.program.supports), io.BytesIO()
    torch.save(state, content)
    write_whole(request.to, content.getvalue())
    named = list(state["params"])
    holds = f"a Pyro parameter store of {', '.join(named[:6])}{', …' if len(named) > 6 else ''}"
    return Exported(request.to, holds, None, [], {"names": named})


def _starts(request: ExportRequest, session: Session, snapshot: Snapshot) -> Exported:
    if session.objective.without_mode:
        raise HofitError(f"{session.objective.without_mode}: there is nothing to start from; .pt holds the guide")
    values = session.objective.values(snapshot.params)
    write_whole(request.to, starts_of(values).encode())
    return Exported(request.to, "starts by name, for Stan and NumPyro", None, [], {"names": list(values)})


_WRITERS = {".nc": _netcdf, ".parquet": _table, ".csv": _table, ".pt": _store, ".json": _starts}
"""By the end of a file's name."""

OF_THE_MODE = (".pt", ".json")


def _uncertainty(session: Session, snapshot: Snapshot) -> tuple[Uncertainty, Status]:
    """The Gaussian at the end of a fit, judged anew. Raises: HofitError where there is none."""
    objective, config = session.objective, session.config
    if objective.without_mode:
        raise HofitError(f"{objective.without_mode}: there is no Gaussian at a mode to draw from")
    verdict = judge_end(objective, snapshot.params, config.stop)
    status = verdict.status
    if status is None or not status.converged:
        raise HofitError(
            "there is no Gaussian at the mode to draw from: the fit has not converged; `hofit report` says why, "
            "`hofit resume` goes on, and .json and .pt hold where it stands"
        )
    gaussian, remarks = gaussian_of(objective, status, verdict)
    values = objective.values(snapshot.params)
    return find_uncertainty(objective, gaussian, remarks, values, verdict, False), status


def _asked(request: ExportRequest) -> tuple[int, int]:
    return DRAWS if request.draws is None else request.draws, request.seed or 0


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary beside a file, which a library writes, and which then takes its place."""
    temporary = write_temporary(path, b"")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
