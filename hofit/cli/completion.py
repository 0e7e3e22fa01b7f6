"""What a shell completes beside commands and options: names of optimizers and schedules, and run directories.

A shell waits for it, so nothing heavy may be imported: the names stand here, and a test holds them to the registry's.
"""

from __future__ import annotations

from pathlib import Path

OPTIMIZERS = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adagrad_rmsprop",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "clipped_adam",
    "dct_adam",
    "gauss_newton",
    "lbfgs",
    "muon",
    "nadam",
    "newton",
    "newton_cg",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "trust_region",
)

SCHEDULES = (
    "constant",
    "cosine_annealing",
    "cosine_annealing_warm_restarts",
    "cyclic",
    "exponential",
    "linear",
    "multi_step",
    "one_cycle",
    "polynomial",
    "reduce_on_plateau",
    "step",
)


def complete_optimizer(incomplete: str) -> list[str]:
    """Optimizers, then schedules, that begin so."""
    return [name for name in (*OPTIMIZERS, *SCHEDULES) if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Run directories whose path begins so, and those inside directories that do: ``runs/`` need not be typed."""
    from glob import escape, glob

    from ..record import CHECKPOINT, CONFIG

    near = sorted(glob(f"{escape(incomplete)}*"))
    candidates = [run for path in near for run in (path, *sorted(glob(f"{escape(path)}/*")))]
    return [run for run in candidates if all((Path(run) / name).is_file() for name in (CONFIG, CHECKPOINT))]
