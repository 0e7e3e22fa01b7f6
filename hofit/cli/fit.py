"""``hofit fit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .options import ConfigPath, DataPath, Device, Dtype, Model, Quiet, Seed, Sets, all_overrides
from .screen import Screen


def command(
    config: ConfigPath,
    model: Model = None,
    data: DataPath = None,
    set: Sets = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/<config>.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --run-dir holds.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model."""
    began = time.perf_counter()
    from ..config.load import load_source
    from ..run.fit import FitOptions, run_fit
    from ..run.session import Request

    source = load_source(config, all_overrides(set, data, seed, device, dtype))
    screen = Screen(quiet)
    options = FitOptions(run_dir, overwrite, config.stem, began, screen.watch)
    screen.close(run_fit(Request(source, model), options))
