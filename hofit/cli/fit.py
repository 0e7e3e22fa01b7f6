"""``hofit fit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import DataPath, Device, Dtype, Json, Model, OptionalConfig, Quiet, Seed, Sets, Verbose, all_overrides
from .screen import Screen


def command(
    model: Model = None,
    config: OptionalConfig = None,
    data: DataPath = None,
    set: Sets = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/<config>, or runs/<model>.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --run-dir holds.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fit a model."""
    began = time.perf_counter()
    from ..config.load import load_source
    from ..run.fit import FitOptions, run_fit
    from ..run.session import Request

    overrides, screen = all_overrides(set, data, seed, device, dtype), Screen(quiet, json, verbose)
    chosen, stem = (config, config.stem) if config is not None else _chosen(model, data, overrides, screen)
    source = load_source(chosen, overrides)
    options = FitOptions(run_dir, overwrite, stem, began, screen.watch, screen.tell_line)
    screen.close(run_fit(Request(source, model), options))


def _chosen(model: str | None, data: Path | None, overrides: list[str], screen: Screen) -> tuple[dict[str, Any], str]:
    """A config for a model that came without, told with its reasons, and the name of its run."""
    from ..errors import ConfigError
    from ..suggestion.suggest import stem_of, suggest
    from ..suggestion.text import summary_of

    if model is None:
        raise ConfigError("nothing to fit: name a model (hofit fit model.py --data data.csv), or a config (-c)")
    suggestion = suggest(model, data, overrides)
    screen.tell(["no config, so it was chosen (hofit init writes it to a file):", *summary_of(suggestion)])
    return suggestion.config, stem_of(model)
