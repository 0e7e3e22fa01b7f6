"""Rows of progress.csv."""

from __future__ import annotations

from pathlib import Path

from hofit.run.recorder import drop_rows_after


def test_rows_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text("iteration,loss\n0,1.0\n1,0.5\n2,0.25\n3,0.1")
    drop_rows_after(path, 2)
    assert path.read_text() == "iteration,loss\n0,1.0\n1,0.5\n2,0.25\n"
    path.write_text("iteration,loss\n0,1.0\n1,0.5\n2")
    drop_rows_after(path, 2)
    assert path.read_text() == "iteration,loss\n0,1.0\n1,0.5\n"


def test_a_name_with_a_comma_stays_one_column(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text('iteration,"0.a,b.accepted"\n0,\n1,1\n2,0\n')
    drop_rows_after(path, 1)
    assert path.read_text() == 'iteration,"0.a,b.accepted"\n0,\n1,1\n'
