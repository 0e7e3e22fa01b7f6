"""Run directories as a stranger would send them: what is in each, and an audit of what a command does with it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hofit.run.checkpoint import read_checkpoint, write_checkpoint

FILES = (
    *("checkpoint.safetensors", "checkpoint-1.safetensors", "config.yaml", "progress.csv", "fit.json", "estimates.csv"),
    *("derived.csv", "diagnose.json"),
)
TEMPORARIES = ("fit.json.tmp", "checkpoint.safetensors.tmp", "config.yaml.tmp", "progress.csv.tmp", ".lock")
EVIL = "import pathlib\npathlib.Path({marker!r}).touch()\n"
"""A module whose import leaves a mark."""

Payload = Callable[[Path, Path], None]
"""Puts itself into a run directory; the second path is a folder outside, where `victim` must stay as it is."""


class Marks:
    """Unpickled, it leaves a mark."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.marker,))


def payloads() -> dict[str, Payload]:
    """By name: contents that are something else, in every file; links; forged checkpoints."""
    found: dict[str, Payload] = {}
    for file in FILES:
        for what, content in CONTENTS.items():
            found[f"{file} is {what}"] = _content(file, content)
        for what, target in (("a link outside", "victim"), ("a link to nowhere", "new"), ("a link to a device", None)):
            found[f"{file} is {what}"] = _link(file, target)
        found[f"{file} is a FIFO"] = _made(file, os.mkfifo)
        found[f"{file} is a folder"] = _made(file, os.mkdir)
    for file in TEMPORARIES:
        for what, target in (("a link outside", "victim"), ("a link to nowhere", "new")):
            found[f"{file} is {what}"] = _link(file, target)
        found[f"{file} is a FIFO"] = _made(file, os.mkfifo)
    return found | FORGED


def _content(file: str, content: Callable[[Path], bytes]) -> Payload:
    def put(run: Path, outside: Path) -> None:
        (run / file).write_bytes(content(outside))

    return put


def _link(file: str, target: str | None) -> Payload:
    def put(run: Path, outside: Path) -> None:
        (run / file).unlink(missing_ok=True)
        (run / file).symlink_to("/dev/zero" if target is None else outside / target)

    return put


def _made(file: str, make: Callable[[Path], None]) -> Payload:
    def put(run: Path, outside: Path) -> None:
        (run / file).unlink(missing_ok=True)
        make(run / file)

    return put


def _pickled(outside: Path) -> bytes:
    return pickle.dumps(Marks(outside / "mark"))


def _torch_file(outside: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"params": Marks(outside / "mark")}, buffer)
    return buffer.getvalue()


def _polyglot(outside: Path) -> bytes:
    """A good safetensors file with an archive behind it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", _pickled(outside))
    return bytes(safetensors.torch.save({"x": torch.ones(1)}, {"hofit": "{}"})) + buffer.getvalue()


def _python(outside: Path) -> bytes:
    return EVIL.format(marker=str(outside / "mark")).encode()


CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "a pickle": _pickled,
    "a file of torch": _torch_file,
    "a safetensors file and a zip in one": _polyglot,
    "Python": _python,
    "YAML that calls": lambda outside: f"!!python/object/apply:os.mkdir ['{outside}/mark']\n".encode(),
    "a huge header": lambda outside: (2**62).to_bytes(8, "little") + b"{}",
    "deep": lambda outside: b"[" * 100_000,
    "of another encoding": lambda outside: "é,é\n".encode("latin-1"),
    "one long cell": lambda outside: b"iteration\n" + b"x" * 131_073 + b"\n",
    "empty": lambda outside: b"",
}


def forge(change: Callable[[dict[str, Any], Path], None]) -> Payload:
    """A checkpoint with another provenance and a digest that is right: a digest is no signature."""

    def put(run: Path, outside: Path) -> None:
        good = read_checkpoint(run / "checkpoint.safetensors")
        change(vars(good.provenance), outside)
        write_checkpoint(run, good.snapshot, good.provenance, keep=1)
        shutil.copy(run / "checkpoint.safetensors", run / "checkpoint-1.safetensors")

    return put


def _evil(outside: Path) -> Path:
    path = outside / "evil.py"
    path.write_bytes(_python(outside) + b"def model(): ...\n")
    return path


def _elsewhere(before: dict[str, Any], outside: Path) -> None:
    before["model"] = f"{_evil(outside)}:model"


def _elsewhere_without_digests(before: dict[str, Any], outside: Path) -> None:
    before |= {"model": f"{_evil(outside)}:model", "model_files": {}}


def _elsewhere_with_another_digest(before: dict[str, Any], outside: Path) -> None:
    path = _evil(outside)
    before |= {"model": f"{path}:model", "model_files": {str(path): hashlib.sha256(b"").hexdigest()}}


def _elsewhere_by_dots(before: dict[str, Any], outside: Path) -> None:
    before["model"] = f"{os.path.relpath(_evil(outside))}:model"


def _dotted(before: dict[str, Any], outside: Path) -> None:
    shutil.copy(_evil(outside), "evil_beside.py")
    before |= {"model": "evil_beside:model", "model_files": {}}


def _of_the_library(before: dict[str, Any], outside: Path) -> None:
    before |= {"model": "antigravity:webbrowser.open", "model_files": {}}


def _angle_brackets(before: dict[str, Any], outside: Path) -> None:
    before |= {"model": f"{_evil(outside)}:model", "model_files": {"<model>": "0"}}


def _config_elsewhere(before: dict[str, Any], outside: Path) -> None:
    before["config"] = before["config"] | {"model": f"{_evil(outside)}:model"}
    before |= {"model": f"{_evil(outside)}:model"}


def _sparse(run: Path, outside: Path) -> None:
    """One tensor of 4 GB, none of which was ever written."""
    size = 4 << 30
    head = {"x": {"dtype": "F64", "shape": [size // 8], "data_offsets": [0, size]}, "__metadata__": {"hofit": "{}"}}
    text = json.dumps(head).encode()
    for name in ("checkpoint.safetensors", "checkpoint-1.safetensors"):
        with (run / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + size)


def _names(run: Path, outside: Path) -> None:
    """Names that climb out of the directory, and that a terminal would obey."""
    fit, estimates = run / "fit.json", run / "estimates.csv"
    obeyed = "\x1b]0;title\x07\x1b[31m\x9b\x08../../victim[/b][link=file:///etc/passwd]"
    content = json.loads(fit.read_text())
    content |= {"status": obeyed, "objective": obeyed, "remarks": [obeyed], "remedy": obeyed}
    content["checks"] = [{"name": obeyed, "ok": False, "message": obeyed, "value": None}]
    fit.write_text(json.dumps(content))
    for word in ("mean", "latent", "adam"):
        estimates.write_text(estimates.read_text().replace(word, obeyed))
    (run / "diagnose.json").write_text(json.dumps({"reading": obeyed, "remarks": [obeyed]}))


FORGED: dict[str, Payload] = {
    "a model elsewhere": forge(_elsewhere),
    "a model elsewhere without digests": forge(_elsewhere_without_digests),
    "a model elsewhere with another's digest": forge(_elsewhere_with_another_digest),
    "a model by ../..": forge(_elsewhere_by_dots),
    "a model by dots in its name": forge(_dotted),
    "a model of the library": forge(_of_the_library),
    "a digest of no file": forge(_angle_brackets),
    "a config with a model elsewhere": forge(_config_elsewhere),
    "4 GB that were never written": _sparse,
    "names that are obeyed": _names,
}


STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link")


class Audit:
    """What a process does, by Python's own events: code that it runs, files that it changes outside of ``inside``."""

    def __init__(self, inside: Path, outside: Path) -> None:
        self.inside, self.outside = str(inside), str(outside)
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in (
            "os.system",
            "subprocess.Popen",
            "os.exec",
            "os.posix_spawn",
            "socket.connect",
            "pickle.find_class",
        ):
            self.found.append(f"{event} {arguments!r:.200}")
        elif event == "exec" and arguments[0].co_filename.startswith(self.outside):
            self.found.append(f"ran {arguments[0].co_filename}")
        elif event == "open" and isinstance(arguments[0], str):
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) if isinstance(flags, int) else 0
            if path.startswith(self.outside) and writes:
                self.found.append(f"open {path} {mode}")
        elif event in CHANGES and str(arguments[0]).startswith(self.outside):
            self.found.append(f"{event} {arguments!r:.200}")
