"""Time of sparse factorisations of known patterns, against CHOLMOD's through cvxopt or SuperLU's through scipy.

    python tests/benchmarks/factorisation.py [--repeats 7] [PROBLEM …]

Best of the repeats, milliseconds of one thread's processor time, so that others on the machine count for little.
«analysis» is all that a pattern needs once: CHOLMOD's orders by AMD. «factor» is the numeric factorisation, «inverse»
log determinant and selected inverse after it, «second» a product with the second derivative of the log determinant
after both, along no direction in particular. SuperLU orders and factorises in one call. Where cvxopt is not installed
its columns are empty.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hofit.linear.multifrontal import selected_derivative, selected_inverse  # noqa: E402
from hofit.linear.sparse import Sparse  # noqa: E402
from hofit.linear.sparsity import Sparsity  # noqa: E402
from hofit.run.memory import keep_large_temporaries  # noqa: E402

Array = NDArray[np.int64]
LIMIT = 10.0
"""Seconds after which a slow operation is not repeated any more."""


COLUMNS = (
    "problem",
    "analysis",
    "factor",
    "inverse",
    "second",
    "solve",
    "CHOLMOD analysis",
    "CHOLMOD numeric",
    "SuperLU",
    "factor / CHOLMOD",
    "inverse / CHOLMOD",
    "memory",
)


@dataclass(frozen=True)
class Problem:
    """A pattern by its places off the diagonal. Shapes (n,)."""

    size: int
    rows: Array
    columns: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("problems", nargs="*", help="parts of the problems' names; all of them if none")
    arguments = parser.parse_args()
    keep_large_temporaries()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name, make in PROBLEMS.items():
        if not arguments.problems or any(part in name for part in arguments.problems):
            print(row(name, make(), arguments.repeats), flush=True)


def row(name: str, problem: Problem, repeats: int) -> str:
    operator, analysis = analysed(problem)
    elimination = operator.sparsity.elimination
    factor_time, factor = best(operator.factor, repeats)
    assert factor.positive

    def inverse() -> tuple[Tensor, Tensor]:
        panel = selected_inverse(elimination, factor.panel)
        return panel.index_select(0, elimination.address), factor.log_determinant()

    inverse_time, _ = best(inverse, repeats)
    along = torch.randn(len(operator.values), generator=torch.Generator().manual_seed(2))
    known = factor.inverse_panel
    second_time, _ = best(lambda: selected_derivative(elimination, factor.panel, known, along), repeats)
    right = operator.matvec(torch.ones(operator.size))
    solve_time, solved = best(lambda: factor.solve(right), repeats)
    assert torch.allclose(solved, torch.ones(operator.size), rtol=1e-8, atol=1e-8)
    symbolic, numeric = cholmod(operator, repeats)
    superlu = by_superlu(operator, repeats)
    times = (analysis, factor_time, inverse_time, second_time, solve_time, symbolic, numeric, superlu)
    ratios = (factor_time / numeric, inverse_time / numeric)
    cells = [name, *(in_milliseconds(one) for one in times), *(f"{one:.2f}" for one in ratios)]
    return f"| {' | '.join(cells)} | {operator.sparsity.memory / 2**20:.0f} MiB |"


def analysed(problem: Problem) -> tuple[Sparse, float]:
    """Random and diagonally dominant, with the seconds that the analysis of the pattern takes."""
    import scipy.sparse.csgraph  # a second that is no part of the analysis
    import scipy.sparse.linalg  # noqa: F401

    start = time.process_time()
    sparsity = Sparsity.of(problem.size, torch.from_numpy(problem.rows), torch.from_numpy(problem.columns))
    assert sparsity.elimination.length
    seconds = time.process_time() - start
    values = torch.rand(len(sparsity.rows), generator=torch.Generator().manual_seed(1)) * 2 - 1
    values[sparsity.diagonal] = 0.0
    sums = Sparse(sparsity, values.abs()).matvec(torch.ones(problem.size))
    values[sparsity.diagonal] = sums + 0.5
    return Sparse(sparsity, values), seconds


def best(operation: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    times, result, stop = [], None, time.process_time() + LIMIT
    for _ in range(repeats):
        del result  # its memory is there to be used again
        start = time.process_time()
        result = operation()
        times.append(time.process_time() - start)
        if time.process_time() > stop:
            break
    return min(times), result


def cholmod(operator: Sparse, repeats: int) -> tuple[float, float]:
    """Seconds of the analysis and of the numeric factorisation."""
    try:
        from cvxopt import cholmod as library
        from cvxopt import spmatrix
    except ImportError:
        return math.nan, math.nan
    sparsity, size = operator.sparsity, operator.size
    matrix = spmatrix(operator.values.tolist(), sparsity.rows.tolist(), sparsity.columns.tolist(), (size, size))
    symbolic, factor = best(lambda: library.symbolic(matrix), 2)
    numeric, _ = best(lambda: library.numeric(matrix, factor), repeats)
    return symbolic, numeric


def by_superlu(operator: Sparse, repeats: int) -> float:
    """Seconds of order and factorisation."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    sparsity = operator.sparsity
    off = sparsity.off
    rows = torch.cat([sparsity.rows, sparsity.columns[off]]).numpy()
    columns = torch.cat([sparsity.columns, sparsity.rows[off]]).numpy()
    values = torch.cat([operator.values, operator.values[off]]).numpy()
    matrix = coo_matrix((values, (rows, columns)), shape=(operator.size, operator.size)).tocsc()
    options = {"SymmetricMode": True}
    seconds, _ = best(
        lambda: splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options), min(repeats, 2)
    )
    return seconds


def in_milliseconds(seconds: float) -> str:
    if math.isnan(seconds):
        return ""
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


# --- Problems ---------------------------------------------------------------------------------------


def chain(size: int) -> Problem:
    return Problem(size, np.arange(1, size), np.arange(size - 1))


def grid(side: int) -> Problem:
    at = np.arange(side * side).reshape(side, side)
    rows = np.concatenate([at[1:].ravel(), at[:, 1:].ravel()])
    return Problem(side * side, rows, np.concatenate([at[:-1].ravel(), at[:, :-1].ravel()]))


def groups(count: int, length: int, border: int) -> Problem:
    """Rows of ``length`` numbers and a border that all of them touch."""
    own = np.arange(count * length).reshape(count, length)
    one, other = np.tril_indices(length, -1)
    outer = count * length + np.arange(border)
    upper, lower = np.tril_indices(border, -1)
    rows = np.concatenate([own[:, one].ravel(), np.tile(outer, count * length), outer[upper]])
    columns = np.concatenate([own[:, other].ravel(), np.repeat(np.arange(count * length), border), outer[lower]])
    return Problem(count * length + border, rows, columns)


def nested(count: int, each: int, border: int = 3) -> Problem:
    """Groups of ``each`` numbers under a number of their own, and a border that all of them touch."""
    heads, members = np.arange(count), count + np.arange(count * each)
    inner = count * (each + 1)
    outer = inner + np.arange(border)
    rows = np.concatenate([members, np.tile(outer, inner)])
    return Problem(inner + border, rows, np.concatenate([np.repeat(heads, each), np.repeat(np.arange(inner), border)]))


def crossed(rows: int, columns: int, meetings: int) -> Problem:
    """Two effects, say pupils and teachers, with random meetings."""
    rng = np.random.default_rng(1)
    row = rng.integers(0, rows, meetings)
    return Problem(rows + columns, rows + rng.integers(0, columns, meetings), row)


def triangles(size: int) -> Problem:
    """Neighbours of random points in the plane, as on a map of districts."""
    from scipy.spatial import Delaunay

    corners = Delaunay(np.random.default_rng(0).random((size, 2))).simplices
    rows = np.concatenate([corners[:, 0], corners[:, 1], corners[:, 2]])
    return Problem(size, rows, np.concatenate([corners[:, 1], corners[:, 2], corners[:, 0]]))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "chain of 2,000": lambda: chain(2_000),
    "chain of 20,000": lambda: chain(20_000),
    "chain of 1,000,000": lambda: chain(1_000_000),
    "grid 44 × 44": lambda: grid(44),
    "grid 100 × 100": lambda: grid(100),
    "grid 300 × 300": lambda: grid(300),
    "20,000 points, triangulated": lambda: triangles(20_000),
    "groups 10,000 × 3 + 6": lambda: groups(10_000, 3, 6),
    "nested 5,000 × 4": lambda: nested(5_000, 4),
    "crossed 20,000 × 2,000, 200,000 meetings": lambda: crossed(20_000, 2_000, 200_000),
    "crossed 20,000 × 4,000, 200,000 meetings": lambda: crossed(20_000, 4_000, 200_000),
    "crossed 6,040 × 3,706, 1,000,000 meetings": lambda: crossed(6_040, 3_706, 1_000_000),
}


if __name__ == "__main__":
    main()
