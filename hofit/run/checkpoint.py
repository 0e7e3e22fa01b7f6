"""A checkpoint: one safetensors file whose metadata is JSON, with a digest over everything, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..codec import decode, encode
from ..errors import CheckpointError, OptionError
from ..fitting.state import LoopState, Snapshot
from ..model.module import sha256_of_file
from ..record import CHECKPOINT, CHECKPOINTS, PIECES
from .files import fsync_directory, write_temporary
from .provenance import Provenance

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read, its digest verified.

    ``passed_over`` says what is wrong with newer ones.
    """

    path: Path
    provenance: Provenance
    snapshot: Snapshot
    passed_over: tuple[str, ...] = ()


def previous_name(age: int) -> str:
    """The file name of the checkpoint ``age`` writes before the newest."""
    return CHECKPOINT if age == 0 else f"checkpoint-{age}.safetensors"


def write_checkpoint(directory: Path, snapshot: Snapshot, provenance: Provenance, keep: int = 2) -> Path:
    """Write the newest checkpoint; the ``keep`` − 1 before it are kept.

    The file appears whole or not at all: temporary name, fsync, rename, fsync of the directory.
    """
    tensors: dict[str, Tensor] = {}
    pieces = [] if snapshot.keeper is None else snapshot.keeper(directory, snapshot.loop.iteration)
    body = _encoded(
        {
            "format": FORMAT,
            "provenance": vars(provenance),
            "loop": snapshot.loop.to_plain(),
            "order": list(snapshot.params),
            "params": dict(snapshot.params),
            "optimizer": snapshot.optimizer,
            "random_now": snapshot.random_now,
            "random_before_trace": snapshot.random_before_trace,
            "inner": snapshot.inner,
            **({"pieces": pieces} if pieces else {}),
        },
        tensors,
    )
    text = json.dumps(body)
    data = safetensors.torch.save(tensors, {"hofit": text, "sha256": _digest(text, tensors)})
    path = directory / CHECKPOINT
    temporary = write_temporary(path, data)
    for age in range(keep - 1, 0, -1):
        older, newer = directory / previous_name(age), directory / previous_name(age - 1)
        if newer.exists():
            os.replace(newer, older)
    os.replace(temporary, path)
    fsync_directory(directory)
    if pieces:
        _leave_out_pieces(directory)
    return path


def _leave_out_pieces(directory: Path) -> None:
    """Remove the files of pieces that no checkpoint speaks of any more."""
    wanted: set[str] = set()
    for path in _checkpoints(directory):
        with suppress(CheckpointError):
            wanted |= {piece["file"] for piece in read_checkpoint(path).snapshot.pieces}
    for path in directory.glob(PIECES):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _encoded(tree: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    try:
        return encode(tree, tensors)
    except TypeError as error:
        raise OptionError(
            f"an optimizer's state cannot be kept: {error}: give it a state_dict and a load_state_dict"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint file and verify its digest.

    Raises: CheckpointError when it is damaged, foreign, or of a newer format.
    """
    if _has_holes(path):
        raise CheckpointError(f"{path} is damaged or no checkpoint: most of it was never written")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}") from error
    text = metadata.get("hofit")
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of hofit")
    if metadata.get("sha256") != _digest(text, tensors):
        raise CheckpointError(f"{path} is damaged: its digest does not match what it holds")
    try:  # a digest is no signature: whoever can write the file can write it
        body = decode(json.loads(text), tensors)
        if body["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {body['format']}; this hofit reads format {FORMAT}")
        params = {name: body["params"][name] for name in body["order"]}
        snapshot = Snapshot(
            params,
            body["optimizer"],
            LoopState.from_plain(body["loop"]),
            body["random_now"],
            body["random_before_trace"],
            body.get("inner", {}),
            pieces=[_file_of_piece(path, piece) for piece in body.get("pieces", [])],
        )
        provenance = Provenance(**body["provenance"])
        wrong = [name for name, value in (params | snapshot.inner).items() if not _is_place(value)]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path} does not hold what a checkpoint of hofit holds ({error!r:.200})") from error
    if wrong:
        raise CheckpointError(f"{path} is no checkpoint of hofit: {', '.join(wrong)} hold no finite numbers")
    return Checkpoint(path, provenance, snapshot)


def _file_of_piece(checkpoint: Path, piece: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of a file beside it. Raises: CheckpointError where it is another."""
    file = checkpoint.parent / Path(piece["file"]).name
    if not file.is_file() or sha256_of_file(file) != piece["sha256"]:
        raise CheckpointError(f"{checkpoint} speaks of {file.name}, which is damaged or gone")
    return {**piece, "file": file.name}


LARGE = 1 << 28
"""Bytes of a file from which on it is looked at whether it is there at all."""


def _has_holes(path: Path) -> bool:
    """Whether a large file has hardly any blocks: reading it would take memory for what a few bytes claim."""
    found = path.stat()
    return found.st_size > LARGE and 512 * getattr(found, "st_blocks", found.st_size) < found.st_size // 64


def _is_place(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(torch.isfinite(value).all())


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at a file, or the newest good one of a run directory.

    Raises: CheckpointError when there is none, naming what is wrong with each that was tried.
    """
    if path.is_file():
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            others = [other for other in _checkpoints(path.parent) if other != path and _is_good(other)]
            if not others:
                raise
            raise CheckpointError(f"{error}\n`hofit resume {others[0]}` goes on from an older one beside it") from error
    if not path.is_dir():
        raise CheckpointError(
            f"no checkpoint or run directory {path}: give the directory that `hofit fit` printed after `Run:`"
        )
    tried: list[str] = []
    for candidate in _checkpoints(path):
        try:
            return replace(read_checkpoint(candidate), passed_over=tuple(tried))
        except CheckpointError as error:
            tried.append(str(error))
    raise CheckpointError(
        "\n".join(tried)
        if tried
        else f"{path} holds no checkpoint: give the directory that `hofit fit` printed after `Run:`"
    )


def _checkpoints(directory: Path) -> list[Path]:
    """Those of a run directory, the newest first; what is no regular file is none."""
    found = (path for path in directory.glob(CHECKPOINTS) if path.is_file())
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _is_good(path: Path) -> bool:
    with suppress(CheckpointError):
        return bool(read_checkpoint(path))
    return False


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
