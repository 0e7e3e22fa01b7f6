"""Nothing leaks: neither memory nor open files grow with iterations, checkpoints or fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

import hofit
from tests.trust import mutants

WITHIN = 1.02
"""Of the memory at half time: what the issue of a leak may be taken for."""


def model() -> None:
    mean = pyro.param("mean", torch.tensor(0.5))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor([1.5, 2.5, -0.5]))


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def growth(work: Callable[[int], object], times: int) -> tuple[float, int]:
    """Memory at the end over that at half time, and how many files more are open."""
    for number in range(times // 2):
        work(number)
    memory, files = resident(), open_files()
    for number in range(times // 2, times):
        work(number)
    return resident() / memory, open_files() - files


def fits(folder: Path) -> Callable[[int], object]:
    """A fit and a resume a call, in run directories of their own, with checkpoints."""
    config = {
        "optimizers": [{"params": "*", "optimizer": "newton", "trust_radius": 0.2}],
        "checkpoint": {"every": 1},
        "stop": {"max_iterations": 3},
    }

    def work(number: int) -> object:
        hofit.fit(model, config, run_dir=folder / str(number))
        return hofit.resume(folder / str(number), model=model, set=["stop.max_iterations=5"])

    return work


def test_many_fits_in_one_process_leave_nothing_behind(tmp_path: Path, full: bool) -> None:
    memory, files = growth(fits(tmp_path), 200 if full else 4)
    assert files == 0
    assert memory < WITHIN or not full


def test_a_mutant_is_found(tmp_path: Path) -> None:
    with mutants.applied("a directory stays open"):
        assert growth(fits(tmp_path), 4)[1] > 0


@pytest.mark.parametrize("optimizer", ["adam", "newton"])
@pytest.mark.parametrize("capture", ["auto", "off"])
def test_many_iterations_leave_nothing_behind(tmp_path: Path, full: bool, optimizer: str, capture: str) -> None:
    """Resumed twice, so that the memory at half time is that of a fit as well."""
    if not full:
        pytest.skip("2,000 iterations: with --trust-full")
    small = {"trust_radius": 1e-5} if optimizer == "newton" else {"lr": 1e-6}
    config = {
        "optimizers": [{"params": "*", "optimizer": optimizer, **small}],
        "checkpoint": {"every": 50},
        "capture": capture,
        "stop": {"max_iterations": 1000, "relative_loss": 0.0},
    }
    hofit.fit(model, config, run_dir=tmp_path / "run")
    memory, files = resident(), open_files()
    result = hofit.resume(tmp_path / "run", model=model, set=["stop.max_iterations=3000"])
    assert result.iterations == 3000
    assert resident() / memory < WITHIN and open_files() == files
