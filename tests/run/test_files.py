"""Files are whole or not there, and a failing disk is not filled with halves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hofit.run.files import write_whole


def test_half_a_file_is_taken_away_where_the_disk_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "a", b"before")

    def full(handle: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"after")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"before"
