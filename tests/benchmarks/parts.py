"""Writes hierarchical logistic data of any size in parts: a parquet file for every so many groups of ten rows.

python -m tests.benchmarks.parts FOLDER [--groups 10000000] [--parts 100]

y_i ~ Bernoulli(logit⁻¹(−0.5 + b₀_g + (1 + b₁_g) x_i)),   b₀ ~ Normal(0, 1),   b₁ ~ Normal(0, 0.7)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

ROWS = 10


def write(folder: Path, groups: int, parts: int, seed: int = 0) -> None:
    """Columns y, x and g, sorted by g; each part has random numbers of its own."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        first, last = part * groups // parts, (part + 1) * groups // parts
        random = np.random.default_rng([seed, part])
        line = [-0.5, 1.0] + random.standard_normal((last - first, 2)) * [1.0, 0.7]
        group = np.repeat(np.arange(last - first), ROWS)
        x = random.standard_normal(len(group)).astype(np.float32)
        y = random.random(len(group)) < 1.0 / (1.0 + np.exp(-(line[group, 0] + line[group, 1] * x)))
        columns = {"y": y.astype(np.int8), "x": x, "g": (group + first).astype(np.int32)}
        parquet.write_table(pyarrow.table(columns), folder / f"part-{part:04d}.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--groups", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=100)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.groups, arguments.parts)
