"""What stands on standard output is the answer alone: with ``--json``, and where a table is printed.

A model may print. What it prints while such a command runs goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from contextvars import ContextVar
from functools import wraps
from typing import Any, TextIO

import typer

_OUTPUT: ContextVar[TextIO | None] = ContextVar("output", default=None)
"""Standard output as the command found it; None where it still is that."""


def answer(text: str) -> None:
    """Print what the command was asked for."""
    typer.echo(text, nl=False, file=_OUTPUT.get())


def alone(command: Callable[..., None], always: bool = False) -> Callable[..., None]:
    """A command whose ``answer`` is alone on standard output: with ``--json``, or ``always``."""

    @wraps(command)
    def run(**options: Any) -> None:
        if not (always or options.get("json")):
            command(**options)
            return
        token = _OUTPUT.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                command(**options)
        finally:
            _OUTPUT.reset(token)

    return run
