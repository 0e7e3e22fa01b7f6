"""A design as the text of a Python module, in the style of the files in models/: to be read, and edited."""

from __future__ import annotations

from .design import Design
from .docstring import docstring
from .loading import arguments_of, load_data_code
from .modelling import model_code

COEFFICIENT = '''\
def coefficient(name: str, start: float) -> Tensor:
    """A fixed effect, by maximum likelihood."""
    return pyro.param(name, torch.tensor(start))
'''

RESTRICTED = '''\
def coefficient(name: str) -> Tensor:
    """A fixed effect under a flat prior: integrated out, it leaves the restricted likelihood (REML)."""
    return pyro.sample(name, dist.ImproperUniform(constraints.real, (), ()))
'''

POSITIVE = """\
def positive(name: str, start: float) -> Tensor:
    return pyro.param(name, torch.tensor(start), constraint=constraints.positive)
"""

CHOLESKY = '''\
def cholesky_factor(sds: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    unit = torch.stack([torch.ones(()), torch.zeros(()), correlation, (1 - correlation**2).sqrt()]).reshape(2, 2)
    return sds[:, None] * unit
'''

MATRIX = '''\
def matrix(formula: str, table: pd.DataFrame, fitted: pd.DataFrame) -> np.ndarray:
    """The design matrix of a formula's right side, (rows, columns), with the levels and knots of `fitted`."""
    design = design_matrices(formula, fitted, na_action="error")
    return design.common.evaluate_new_data(table).design_matrix.astype(float)
'''

MATRIX_WITH_FUNCTIONS = '''\
def matrix(formula: str, table: pd.DataFrame, fitted: pd.DataFrame) -> np.ndarray:
    """The design matrix of a formula's right side, (rows, columns), with the levels and knots of `fitted`."""
    functions = {FUNCTIONS}  # that a formula may call
    design = design_matrices(formula, fitted, na_action="error", extra_namespace=functions)
    return design.common.evaluate_new_data(table).design_matrix.astype(float)
'''

GROUPS = '''\
def groups(columns: list[str], table: pd.DataFrame, fitted: pd.DataFrame) -> tuple[np.ndarray, int]:
    """The group of each row, and how many there are: those of `fitted` in order, then what is new in `table`."""
    every = pd.concat([fitted[columns].sort_values(columns), table[columns]]).drop_duplicates()
    levels = pd.MultiIndex.from_frame(every)
    return levels.get_indexer(pd.MultiIndex.from_frame(table[columns])), len(levels)
'''


def text_of_module(design: Design) -> str:
    """The whole file."""
    parts = [load_data_code(design), model_code(design)]
    parts += [RESTRICTED if design.reml else COEFFICIENT] if _has_coefficients(design) else []
    parts += [POSITIVE] if _has_positive(design) else []
    parts += [CHOLESKY] if any(len(one.sds) == 2 for one in design.effects) else []
    parts += [GROUPS] if design.effects else []
    if _needs_matrix(design):
        functions = ", ".join(f'"{name}": np.{name}' for name in design.functions)
        parts.append(MATRIX_WITH_FUNCTIONS.replace("FUNCTIONS", functions) if functions else MATRIX)
    body = "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    return f"{docstring(design)}\n{_imports(design, body)}\n\n\n{body}"


def _imports(design: Design, body: str) -> str:
    lines = ["from pathlib import Path", ""]
    lines += ["import numpy as np"] if "np." in body else []
    lines += ["import pandas as pd", "import pyro", "import pyro.distributions as dist", "import torch"]
    lines += ["from formulae import design_matrices"] if _needs_matrix(design) else []
    lines += ["from torch import Tensor"]
    lines += (
        ["from torch.distributions import constraints"] if "=constraints." in body or "(constraints." in body else []
    )
    return "\n".join(lines)


def _has_coefficients(design: Design) -> bool:
    return bool(design.fixed or design.zero or design.dispersion)


def _has_positive(design: Design) -> bool:
    return bool(design.effects or design.parameter or design.family.name == "student_t")


def _needs_matrix(design: Design) -> bool:
    return any("matrix(" in code for _, code, _ in arguments_of(design))
