"""Processes that start at once: one that has imported hofit forks another for each command line.

To start hofit takes seconds, nearly all of them imports. ``Server`` is held by the test, ``main`` is the process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60
"""Seconds after which a command that hangs is ended, by SIGALRM."""

Setup = Sequence[Any]
"""``module:function`` to be called in the new process before the command, with its arguments."""


class Server:
    """Starts command lines of hofit as processes of their own."""

    def __init__(self) -> None:
        here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.trust.server"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **here}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, cwd: Path, *argv: str, setups: Sequence[Setup] = ()) -> Started:
        """``hofit argv`` in a folder; what it prints goes to a file there."""
        order = {"cwd": str(cwd), "argv": argv, "setups": setups}
        return Started(self, self._ask(order), cwd)

    def run(self, cwd: Path, *argv: str, setups: Sequence[Setup] = ()) -> Ended:
        return self.start(cwd, *argv, setups=setups).wait()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)
        self._process.stdout.close()

    def _ask(self, order: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Started:
    """A command that runs."""

    def __init__(self, server: Server, pid: int, cwd: Path) -> None:
        self._server, self.pid, self._printed = server, pid, cwd / f"printed-{pid}"
        self._code: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs: the server has not been asked for it, so its number is its own."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        if self._code is None:
            self._code = int(self._server._ask({"wait": self.pid}))
        return Ended(self._code, self._printed.read_text() if self._printed.exists() else "")


class Ended:
    """How a command ended, as a shell says it (a signal's number is negative), and what it printed."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text

    def __repr__(self) -> str:
        return f"{self.code}: {self.text}"


SENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""What tests send a command."""


def main() -> None:
    """Read orders, a line each, and answer each with a line."""
    sys.stdin.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _warm()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, SENT)  # until the command is there to hear of them
            answer = os.fork()
            if answer == 0:
                _be(order)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT)
        print(answer, flush=True)


def _warm() -> None:
    """Import all that a fit imports, and let torch set up what it sets up once."""
    import pyro
    import pyro.distributions as dist
    import torch

    import hofit
    import hofit.cli.app
    import hofit.report.summary

    torch.set_num_threads(1)
    for optimizer in ("newton", "adam"):  # torch's own import its compiler when the first is made
        config = {"optimizers": [{"params": "*", "optimizer": optimizer}], "stop": {"max_iterations": 3}}
        hofit.fit(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), config)


def _be(order: Any) -> None:
    """Become the command; never comes back."""
    code: Any = 1
    try:
        signal.alarm(PATIENCE)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also where the tests run under nohup
        os.chdir(order["cwd"])
        printed = os.open(f"printed-{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for handle, target in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(handle, target)
        sys.path.insert(0, "")
        for name, *arguments in order["setups"]:
            module, _, function = name.partition(":")
            getattr(import_module(module), function)(*arguments)
        from hofit.cli.app import main as command_line

        sys.argv = ["hofit", *order["argv"]]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT)
        command_line()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    except KeyboardInterrupt:  # it waited until the signals were let through: the command has not begun
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
