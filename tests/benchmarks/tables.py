"""A .csv file read and coded by the exact reader and by the fast one: seconds, and the peak of memory.

Four columns: two of decimals with all their digits, one of integers, one of text, which is coded. Each reading is a
process of its own; printed are the medians. Seconds are of the processor (all threads) and of the clock, without the
import of hofit; that of pyarrow, which only the fast reader needs, is part of its time, and stands beside it too.
Memory is the peak above what the process holds before it reads, pyarrow not yet imported. Needs Linux for that.

The second size is where `csv_fast.LARGE` stands: there the fast reader must not take longer than the exact one.

    make bench-tables
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hofit.config.schema import Column
from hofit.model.columns import columns_to_arguments
from hofit.model.csv_exact import read_exactly
from hofit.model.csv_fast import read_fast
from hofit.model.table import Table

ROWS = (100, 40_000, 1_000_000)
LEVELS = 10_000
WAYS = ("exact", "fast")
REPEATS = 3

COLUMNS = {
    "x": Column(column="x"),
    "y": Column(column="y"),
    "n": Column(column="n", dtype="long"),
    "g": Column(column="g", codes=True, levels="k"),
}


def write(path: Path, rows: int) -> None:
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(size=rows).tolist(), (1e3 * drawn.normal(size=rows)).tolist()
    n, g = drawn.integers(0, 100, rows).tolist(), drawn.integers(0, LEVELS, rows).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write("x,y,n,g\n")
        file.writelines(f"{a!r},{b!r},{c},group_{d:05d}\n" for a, b, c, d in zip(x, y, n, g, strict=True))


def measured(way: str, path: Path) -> dict[str, float]:
    """One reading, in this process. Seconds and megabytes by what they are of."""
    held = memory("VmRSS")
    clock, processor = time.perf_counter(), time.process_time()
    if way == "fast":
        import pyarrow.compute
        import pyarrow.csv  # noqa: F401
    imported = time.process_time()
    table = read_exactly(path) if way == "exact" else read_fast(path, large=0)
    assert table is not None, "the fast reader left the file to the exact one"
    read = time.process_time()
    made = columns_to_arguments(Table(path, table.columns, table.lines), COLUMNS, "error")
    assert not made.errors
    end = time.process_time()
    return {
        "import": imported - processor,
        "read": read - imported,
        "code": end - read,
        "all": end - processor,
        "clock": time.perf_counter() - clock,
        "peak": memory("VmHWM") - held,
    }


def memory(kind: str) -> float:
    """Megabytes that this process holds (VmRSS), or has held at most (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


def main() -> None:
    names = ("import", "read", "code", "all", "clock")
    print(f"{'rows':>9} {'MB':>6} {'way':>6} {' '.join(f'{name:>7}' for name in names)} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            path = Path(folder) / f"{rows}.csv"
            write(path, rows)
            for way in WAYS:
                runs = [
                    json.loads(subprocess.check_output([sys.executable, __file__, "--way", way, "--path", str(path)]))
                    for _ in range(REPEATS)
                ]
                median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
                *seconds, peak = median.values()
                times = " ".join(f"{value:7.3f}" for value in seconds)
                print(f"{rows:9} {path.stat().st_size / 1e6:6.2f} {way:>6} {times} {peak:8.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--path", type=Path)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measured(asked.way, asked.path)))
    else:
        main()
