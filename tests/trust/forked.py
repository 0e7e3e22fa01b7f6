"""Trials in a child of this process: what hangs is killed, what grows is seen, and nothing of it stays here.

Importing torch and Pyro takes seconds, a fork some milliseconds, a command on a toy model little more: so hundreds can
be tried. A child does one trial after the other; where it dies, a new one goes on with the next.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

WAIT = 20.0
"""Seconds after which a trial counts as hanging. It is generous: other processes may have the machine."""

ROOM = 2 << 30
"""Bytes of addresses that a child may take beyond those it was born with."""

Trial = Callable[[], int]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its exit code, None where its process died or hung; what it printed; what it took."""

    code: int | None
    text: str
    seconds: float
    """Of the processor, so that another process on the machine does not count."""
    megabytes: float
    """By which it lifted the peak of memory."""

    @property
    def clean(self) -> bool:
        """Whether it ended by itself, in a way that is not a bug."""
        return self.code is not None and self.code != 1 and "Traceback" not in self.text


def tried(trials: Mapping[str, Trial], folder: Path, wait: float = WAIT) -> dict[str, Outcome]:
    """The outcomes of trials, each with ``folder`` as its working directory; a trial gives its exit code."""
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(trials):
        rest = {name: trial for name, trial in trials.items() if name not in outcomes}
        outcomes |= _of_one_child(rest, folder, wait)
    return outcomes


def command(*arguments: object) -> Trial:
    """The command line as a trial."""

    def run() -> int:
        from hofit.cli.app import main

        sys.argv = ["hofit", *map(str, arguments)]
        try:
            main()
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return 0

    return run


def _of_one_child(trials: Mapping[str, Trial], folder: Path, wait: float) -> dict[str, Outcome]:
    """The outcomes as far as one child comes; that of the trial that ended it is the last."""
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryFile() as printed:
        read, write = os.pipe()
        child = _fork()
        if child == 0:
            os.close(read)
            _try_all(trials, folder, printed.fileno(), write)
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as lines:
            for name in trials:
                line = _line(lines, wait)
                if not line:
                    os.kill(child, signal.SIGKILL)
                    printed.seek(0)
                    outcomes[name] = Outcome(None, printed.read().decode(errors="replace"), wait, 0.0)
                    break
                outcomes[name] = Outcome(**json.loads(line))
        os.waitpid(child, 0)
    return outcomes


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads; those of BLAS survive one
        return os.fork()


def _line(lines: IO[bytes], wait: float) -> bytes:
    """What the child says of its next trial; empty where it does not. ``lines`` is not buffered."""
    ready = select.select([lines.fileno()], [], [], wait)[0]
    return lines.readline() if ready else b""


def _try_all(trials: Mapping[str, Trial], folder: Path, output: int, results: int) -> None:
    """Never returns: a child must not go on with what its parent does."""
    try:
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
        torch.set_num_threads(1)  # the threads of the parent's pool are not in the child, and would be waited for
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
        for trial in trials.values():
            os.chdir(folder)
            os.ftruncate(output, 0)
            os.lseek(output, 0, os.SEEK_SET)
            os.write(results, json.dumps(_one(trial, output)).encode() + b"\n")
    finally:
        os._exit(0)


def _one(trial: Trial, output: int) -> dict[str, Any]:
    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        code = trial()
    except BaseException:
        traceback.print_exc()
        code = 1
    seconds, risen = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    sys.stdout.flush()
    sys.stderr.flush()
    text = os.pread(output, 1 << 24, 0).decode(errors="replace")
    return {"code": code, "text": text, "seconds": seconds, "megabytes": risen / 1024}
