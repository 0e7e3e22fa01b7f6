"""What every test gets: a clean parameter store, a seed, float64; toy files; the command line in this process."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

from hofit.model.randomness import set_seed
from tests.command_line import Hofit, Outcome, Write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trust-full", action="store_true", help="all of tests/trust, not its fast slice")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether all of tests/trust is asked for, and not its fast slice alone."""
    return bool(pytestconfig.getoption("--trust-full"))


@pytest.fixture(autouse=True, scope="session")
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Here `fsync` returns at once: only a loss of power tells the difference, and it takes longer than a toy's fit.

    When it is called, in what order, and what comes of its failing is tried by tests that put their own in this place,
    and in processes of their own, where it is the system's.
    """
    sync = os.fsync
    os.fsync = lambda handle: None  # type: ignore[assignment]
    yield
    os.fsync = sync


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """An empty parameter store, seed 0 and float64; the dtype and the thread count are put back."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    pyro.clear_param_store()
    set_seed(0)  # as pyro.set_rng_seed, which formats the stack for each device there might be
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    pyro.clear_param_store()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("a/b.py", text): a file under tmp_path with the text, dedented."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def hofit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hofit:
    """hofit("fit", "model.py", "-c", "a.yaml"): the command line in this process, on a wide screen."""
    from hofit.cli.app import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["hofit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "240")
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        printed = capsys.readouterr()
        assert isinstance(code, int), f"left with {code!r}"
        return Outcome(code, printed.out, printed.err)

    return run
