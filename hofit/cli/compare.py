"""``hofit compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .answer import answer
from .completion import complete_run
from .options import DataPath, Device, Dtype, Json, Quiet, Seed, Sets, all_overrides

if TYPE_CHECKING:
    from ..comparison.compare import Comparison

USAGE = "hofit compare MODEL CFG CFG … (mixes), MODEL --config CFG --starts N, or RUN_DIR RUN_DIR … (finished runs)"

FOLDER = Path("runs/compare")
"""Where runs go that compare makes, with -2, -3 … when it is taken."""


class _Asked(NamedTuple):
    """What the options say of the fits and of what is shown; compare.csv goes to ``out``, a folder."""

    out: Path
    overrides: list[str]
    jobs: int
    overwrite: bool
    quiet: bool
    json: bool


def command(
    what: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL] CFG... | [MODEL] | RUN_DIR...",
            help="A model and configs; a model, with --config and --starts; or run directories.",
            show_default=False,
            autocompletion=complete_run,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config whose starts are tried.")] = None,
    starts: Annotated[
        int | None, typer.Option("--starts", help="How many starts are tried: own, prior, jittered, spread.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Processes at once.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the runs and compare.csv go; default: runs/compare, of RUN_DIRs here."),
    ] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Each model is nested in the next larger one, whatever their names say.")
    ] = False,
    data: DataPath = None,
    set: Sets = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs that --out holds.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare optimizer mixes, starts, or models: modes, speed, likelihood-ratio tests, AIC and BIC; compare.csv."""
    from ..errors import HofitError

    given, overrides = what or [], all_overrides(set, data, seed, device, dtype)
    runs = bool(given) and all(path.is_dir() for path in given)
    asked = _Asked(out or (Path() if runs else _folder()), overrides, jobs, overwrite, quiet, json)
    if starts is not None or config is not None:
        if starts is None or config is None or len(given) > 1 or runs:
            raise HofitError(f"--config and --starts go together, with one model at most: {USAGE}")
        if starts < 2:
            raise HofitError(f"--starts {starts}: two at least, to be compared")
        model = str(given[0]) if given else None
        _starts(model, config, starts, asked)
        return
    if runs:
        if overrides or overwrite or jobs > 1:
            raise HofitError("run directories are only read: --set, --data, --overwrite and --jobs are for fits")
        if len(given) < 2:
            raise HofitError(f"one run directory is nothing to compare: {USAGE}")
        _models(given, nested, asked)
        return
    configs = [path for path in given if path.suffix in (".yaml", ".yml")]
    others = [path for path in given if path not in configs]
    if len(configs) == 1 and len(others) < 2 and not any(path.is_dir() for path in others):
        tried = f"--config {configs[0]} --starts 20 tries its starts"
        raise HofitError(f"one config is nothing to compare: give another, or {tried}: {USAGE}")
    gone = [str(path) for path in others[1:] or (others if len(configs) < 2 else [])]
    if gone and len(configs) < 2:
        raise HofitError(f"no run directory, and no config (.yaml): {', '.join(gone)}. {USAGE}")
    if len(configs) < 2 or len(others) > 1:
        raise HofitError(f"nothing to compare: {USAGE}")
    _mixes(str(others[0]) if others else None, configs, asked)


def _folder() -> Path:
    """Where runs go, as the user has not said."""
    number, folder = 1, FOLDER
    while folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        number += 1
        folder = FOLDER.with_name(f"{FOLDER.name}-{number}")
    return folder


def _mixes(model: str | None, configs: list[Path], asked: _Asked) -> None:
    from ..comparison.compare import compare
    from ..comparison.outcome import Outcome, read_outcome
    from ..config.load import load_source
    from ..record import FIT
    from ..report.console import FitConsole
    from ..report.standings import Standings
    from ..run.mixes import Standing, check_mixes, mixes_of, run_mixes

    _check_out(asked.out)
    mixes = mixes_of(configs, lambda path: load_source(path, asked.overrides), asked.out)
    check_mixes(mixes, model, asked.overwrite)
    standings = Standings(FitConsole(), [mix.label for mix in mixes], asked.quiet or asked.json)

    def hear(one: Standing) -> None:
        standings.put(one.label, one.status, one.iteration, one.loss, one.seconds)

    with standings.shown():
        problems, signal = run_mixes(mixes, model, asked.overwrite, asked.jobs, hear)
    outcomes = [
        read_outcome(mix.run_dir, mix.label)
        if mix.label not in problems and (mix.run_dir / FIT).is_file()
        else Outcome(mix.label, {}, problem=problems.get(mix.label, "not fitted: it was interrupted before"))
        for mix in mixes
    ]
    found = compare(outcomes)
    _close(found, asked)
    if signal is not None:
        from ..status import SIGNALLED

        raise typer.Exit(SIGNALLED + signal)
    best = next((one for one in outcomes if one.label == found.best), None)
    fits = [one for one in outcomes if one.problem is None]
    raise typer.Exit(int((best or fits[0]).fit["exit_code"]) if fits else 2)


def _starts(model: str | None, config: Path, starts: int, asked: _Asked) -> None:
    from ..comparison.compare import compare
    from ..config.load import load_source
    from ..run.fit import FitOptions, run_fit
    from ..run.mixes import refuse_folder
    from ..run.multistart import trials_of
    from ..run.session import Request
    from .screen import Screen

    _check_out(asked.out)
    source = load_source(config, [*asked.overrides, f"starts={starts}"])
    run_dir = asked.out / config.stem
    refuse_folder(run_dir, asked.overwrite)
    tell = Screen(asked.quiet, asked.json).tell_line
    options = FitOptions(run_dir, asked.overwrite, tell=tell, jobs=asked.jobs)
    result = run_fit(Request(source, model), options)
    outcomes = [trial.outcome() for trial in trials_of(run_dir, starts)]
    found = compare(outcomes)
    found.remarks = [remark for remark in result.remarks if remark.startswith("starts:")]  # of all there is to say
    _close(found, asked, run_dir, "interrupted" if result.signal is not None else "the fit from the best start")
    raise typer.Exit(result.exit_code)


def _models(run_dirs: list[Path], nested: bool, asked: _Asked) -> None:
    from ..comparison.compare import compare
    from ..comparison.outcome import read_outcome

    _check_out(asked.out)
    _close(compare([read_outcome(path) for path in run_dirs], nested), asked)


def _check_out(out: Path) -> None:
    from ..errors import RunDirectoryError

    if out.exists() and not out.is_dir():
        raise RunDirectoryError(f"--out {out} is a file, not a directory")


def _close(found: Comparison, asked: _Asked, run_dir: Path | None = None, kind: str = "") -> None:
    """Write compare.csv, and show what was found."""
    from ..errors import refusals_told
    from ..record import COMPARISON, json_text
    from ..report.comparison import print_comparison
    from ..report.console import FitConsole

    path = asked.out / COMPARISON
    with refusals_told(path):
        asked.out.mkdir(parents=True, exist_ok=True)
        path.write_text(found.to_csv(), encoding="utf-8")
    whole = found.to_json()
    if asked.json:
        answer(json_text({**whole, "csv": str(path), **({"run_dir": str(run_dir)} if run_dir else {})}))
    elif not asked.quiet:
        console = FitConsole()
        print_comparison(console, whole)
        if run_dir is not None:
            console.print(f"Run: {run_dir} ({kind})", soft_wrap=True)
        console.print(f"wrote {path}", soft_wrap=True)
