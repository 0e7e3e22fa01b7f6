"""What a fit returns: for notebooks, and for the files and the summary of the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..point import Params, Site
from ..status import STATUSES, TERMINATED_EXIT_CODE
from .verdict import Check

EstimateRow = dict[str, Any]


@dataclass
class FitResult:
    """The end of a fit.

    ``params`` are unconstrained, ``values`` constrained; both hold every parameter and latent, fixed ones included.
    ``std_errors`` holds those that the objective gives. ``seconds`` runs from the model's first trace to the verdict.
    """

    status: str
    loss: float
    gradient_norm: float
    iterations: int
    seconds: float
    objective: str
    params: Params
    values: Params
    std_errors: Params = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    evaluations: dict[str, int] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    log_likelihood: float | None = None
    terminated: bool = False
    run_dir: Path | None = None
    total_seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    model_sha256: dict[str, str] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        return STATUSES[self.status].converged

    @property
    def exit_code(self) -> int:
        if self.status == "interrupted" and self.terminated:
            return TERMINATED_EXIT_CODE
        return STATUSES[self.status].exit_code

    @property
    def remedy(self) -> str:
        return STATUSES[self.status].remedy

    def estimates(self) -> list[EstimateRow]:
        """The rows of estimates.csv: one a scalar."""
        rows: list[EstimateRow] = []
        for name, site in self.sites.items():
            value, unconstrained = self.values[name], self.params[name]
            error = self.std_errors.get(name)
            values = value.reshape(-1).tolist()
            leaves = unconstrained.reshape(-1).tolist() if value.shape == unconstrained.shape else [None] * len(values)
            errors = [None] * len(values) if error is None else error.reshape(-1).tolist()
            for k, index in enumerate(_indices(value)):
                rows.append(
                    {
                        "name": name,
                        "index": index,
                        "role": site.role,
                        "estimate": values[k],
                        "std_error": _finite_or_none(errors[k]),
                        "unconstrained": leaves[k],
                        "optimizer": self.owners.get(name),
                    }
                )
        return rows

    def fit_json(self) -> dict[str, Any]:
        """What fit.json holds."""
        return {
            "status": self.status,
            "converged": self.converged,
            "exit_code": self.exit_code,
            "objective": self.objective,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "iterations": self.iterations,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "total_seconds": self.total_seconds,
            "parameters": sum(site.shape.numel() for site in self.sites.values() if site.role != "fixed"),
            "log_likelihood": self.log_likelihood,
            **({"elbo": -self.loss} if self.objective == "elbo" else {}),
            "checks": [check.to_plain() for check in self.checks],
            "remarks": self.remarks,
            "remedy": self.remedy,
            "versions": self.versions,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
        }

    def __repr__(self) -> str:
        return (
            f"FitResult({self.status}, loss={self.loss:.10g}, gradient_norm={self.gradient_norm:.3g}, "
            f"iterations={self.iterations}, seconds={self.seconds:.3g})"
        )


def _indices(value: Tensor) -> list[str]:
    if value.dim() == 0:
        return [""]
    grid = torch.cartesian_prod(*(torch.arange(size) for size in value.shape)).reshape(-1, value.dim())
    return [",".join(str(i) for i in index) for index in grid.tolist()]


def _finite_or_none(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
