"""Whatever table people have: the column becomes what it holds, or is refused with the file and the place in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hofit.config.schema import Column
from hofit.errors import DataError
from hofit.model import csv_fast
from hofit.model.columns import columns_to_arguments
from hofit.model.table import read_table
from tests.trust.forked import Outcome, Trial, tried
from tests.trust.tables import Table, large, of_csv, of_json, of_npz, of_parquet

TABLES = {
    f"{kind}: {name}": table
    for kind, tables in {"csv": of_csv(), "json": of_json(), "npz": of_npz(), "parquet": of_parquet()}.items()
    for name, table in tables.items()
}

SECONDS, HANGS = 3.0, 30.0
"""Of a table whose size is the trouble; in the fast slice, which runs on busy machines too, what hangs is found."""
MEGABYTES = 500.0


def outcome_of(folder: Path, table: Table) -> tuple[list[float], str]:
    """The column y and no refusal, or nothing and the refusal."""
    path = folder / table.name
    path.write_bytes(table.content)
    request = Column(column="y", codes=table.codes is not None, dtype=table.dtype)  # type: ignore[arg-type]
    try:
        made = columns_to_arguments(read_table(path), {"y": request}, table.missing)
    except DataError as refused:
        return [], str(refused)
    return ([], str(made.errors[0])) if made.errors else (made.values["y"].tolist(), "")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_right_or_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    table = TABLES[name]
    for large_from in (csv_fast.LARGE, 0):
        monkeypatch.setattr(csv_fast.read_fast, "__defaults__", (large_from,))
        found, refusal = outcome_of(tmp_path, table)
        expected = table.codes if table.codes is not None else table.numbers
        if expected is not None:
            assert (found, refusal) == (list(expected), "")
        else:
            assert found == [] and all(part in refusal for part in (table.name, *table.says)), refusal


def read(path: Path) -> Trial:
    def trial() -> int:
        try:
            columns_to_arguments(read_table(path), {"y": Column(column="y")}, "error")
        except DataError as refused:
            print(refused)
            return 2
        return 0

    return trial


def test_a_table_whose_size_is_the_trouble_is_refused_in_time_and_memory(tmp_path: Path, full: bool) -> None:
    read(Path("nowhere.csv"))()  # what is imported
    outcomes: dict[str, Outcome] = tried({name: read(path) for name, path in large(tmp_path).items()}, tmp_path)
    for name, outcome in outcomes.items():
        assert outcome.clean, f"{name}: {outcome.text[-400:]}"
        assert outcome.seconds < (SECONDS if full else HANGS) and outcome.megabytes < MEGABYTES, f"{name}: {outcome}"
        assert ("bomb" in name) == ("times its size" in outcome.text), f"{name}: {outcome.text}"
