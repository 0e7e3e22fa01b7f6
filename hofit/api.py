"""Fit, resume, compare, diagnose, profile and bootstrap, from Python: what notebooks call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .comparison.compare import Comparison
from .comparison.compare import compare as compare_outcomes
from .comparison.outcome import Outcome, read_outcome
from .config.load import load_source
from .errors import ConfigError
from .fitting.result import FitResult
from .run.diagnose import run_diagnose
from .run.fit import FitOptions, run_fit
from .run.many import run_many
from .run.resume import ResumeRequest, run_resume
from .run.session import Request
from .uncertainty.diagnosis import Diagnosis

if TYPE_CHECKING:
    from .intervals.bootstrap import BootstrapResult
    from .intervals.run_profile import ProfileResult


def fit(
    model: Callable[..., Any] | str | Path,
    config: str | Path | Mapping[str, Any],
    /,
    *,
    run_dir: str | Path | None = None,
    data: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> FitResult:
    """Fit a Pyro model.

    Args:
        model: a callable, a PyroModule instance, or ``path.py``, ``path.py:name``, ``package.module:name``.
        config: path of a YAML file, or a mapping of the same keys.
        run_dir: where to write the run; nothing is written without it.
        data: arguments of the model, as a mapping, for names that clash with those of this function.
        arguments: arguments of the model. With a callable, no ``load_data`` is called.
    Returns: the result that the command line prints.
    Raises: HofitError for wrong input; everything else is a status.

    Pyro's parameter store, seeds, validation flags, default dtype and device are left as they were found.
    ``torch.nn`` modules inside the model hold the fitted weights afterwards, as after any training.
    """
    reference = str(model) if isinstance(model, Path) else model
    request = Request(load_source(config), reference, _merged(data, arguments))
    return run_fit(request, FitOptions(run_dir=None if run_dir is None else Path(run_dir)))


def fit_many(
    model: Callable[..., Any] | str | Path,
    config: str | Path | Mapping[str, Any],
    datasets: Iterable[Mapping[str, Any]],
    /,
    **arguments: Any,
) -> list[FitResult]:
    """Fit one model to many data sets: what ``fit`` gives of each, in order, in much less time where they are alike.

    Data sets whose arguments differ in the values of tensors alone are computed as one batch, each with errors of its
    own and the verdict of its own Hessian, gradient and Newton step; one whose minimum is not plain (a boundary, a flat
    direction) is fitted alone, and so are all where the model cannot be batched (`torch.vmap`), draws, or integrates
    by other means than laplace.

    Args:
        model, config: as for ``fit``.
        datasets: arguments of the model, a mapping each.
        arguments: those that are the same for all.
    Raises: HofitError for wrong input, naming the data set by its number, from 0.
    """
    reference = str(model) if isinstance(model, Path) else model
    return run_many(load_source(config), reference, [_merged(one, arguments) for one in datasets])


def resume(
    checkpoint: str | Path,
    /,
    *,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    set: Sequence[str] = (),
    allow_changed: bool = False,
    **arguments: Any,
) -> FitResult:
    """Go on from a checkpoint file, or from a run directory's newest good one, exactly where it stopped.

    Args:
        model, data, arguments: only for a fit that was given a callable or arguments from Python: give them again.
        set: ``key=value`` for settings under stop, progress and checkpoint.
        allow_changed: go on although the model or the data changed.
    Raises: CheckpointError when the checkpoint is damaged, or of another model or data; HofitError.
    """
    return run_resume(ResumeRequest(Path(checkpoint), list(set), allow_changed, model, _merged(data, arguments)))


def compare(*runs: FitResult | str | Path, nested: bool = False) -> Comparison:
    """Hold fits of one model or of several against each other: modes, likelihood-ratio tests, AIC, AICc and BIC.

    Args:
        runs: results, or run directories; results that wrote none are called ``result 1``, ``result 2`` …
        nested: each model is nested in the next larger one, whatever their parameters are called.
    Returns: rows, tests and remarks, as ``hofit compare --json`` prints them.
    Raises: HofitError where they are not of the same data; RunDirectoryError for what is no finished run.
    """
    outcomes = []
    for number, run in enumerate(runs, 1):
        if isinstance(run, FitResult) and run.run_dir is None:
            outcomes.append(Outcome(f"result {number}", run.fit_json(), run.estimate_rows()))
        else:
            path = run.run_dir if isinstance(run, FitResult) else Path(run)
            assert path is not None
            outcomes.append(read_outcome(path))
    return compare_outcomes(outcomes, nested)


def diagnose(
    run_dir: str | Path,
    /,
    *,
    draws: int = 1000,
    seed: int = 0,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    **arguments: Any,
) -> Diagnosis:
    """Say whether the Gaussian at the mode of a fit is good enough; writes diagnose.json into its run directory.

    Args:
        draws: from that Gaussian.
        model, data, arguments: as for ``resume``.
        allow_changed: go on although the model or the data changed.
    Raises: CheckpointError when there is no checkpoint, or it is of another model or data; HofitError where the fit
        has not converged or there is no Gaussian.
    """
    request = ResumeRequest(Path(run_dir), [], allow_changed, model, _merged(data, arguments))
    return run_diagnose(request, draws, seed)


def profile(
    run_dir: str | Path,
    /,
    *,
    params: str | Sequence[str] = (),
    level: float = 0.95,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    **arguments: Any,
) -> ProfileResult:
    """Intervals by profiles of the likelihood; writes profile.csv and profile_points.csv into the run directory.

    Args:
        params: names as globs, or single numbers as ``beta[3]``; all that have a standard error when left out.
        level: of the intervals.
        model, data, arguments: as for ``resume``.
    Raises: CheckpointError as ``resume``; HofitError where the fit has not converged, or there is nothing to profile.
    """
    from .intervals.run_profile import ProfileRequest, run_profile

    request = ResumeRequest(Path(run_dir), [], allow_changed, model, _merged(data, arguments))
    return run_profile(ProfileRequest(request, [params] if isinstance(params, str) else params, level))


def bootstrap(
    run_dir: str | Path,
    /,
    *,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
    overwrite: bool = False,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    **arguments: Any,
) -> BootstrapResult:
    """Intervals by refitting data drawn from the fit; goes on with the draws that bootstrap.csv holds already.

    Args:
        draws: data sets; draw k is seeded by ``seed`` and k.
        overwrite: begin anew.
        model, data, arguments: as for ``resume``.
    Raises: CheckpointError as ``resume``; HofitError where the fit has not converged, or cannot be drawn from.
    """
    from .intervals.bootstrap import BootstrapRequest, run_bootstrap

    request = ResumeRequest(Path(run_dir), [], allow_changed, model, _merged(data, arguments))
    return run_bootstrap(BootstrapRequest(request, draws, seed, level, overwrite))


def _merged(data: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    doubled = sorted({*(data or {})} & {*arguments})
    if doubled:
        raise ConfigError(f"argument {doubled[0]!r} is given twice: in data= and by name")
    return {**(data or {}), **arguments}
