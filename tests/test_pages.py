"""The README and docs/ are true: commands run, configs are valid, Python works, outputs are what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hofit.plotting import page as report_page
from hofit.plotting import pictures as drawing
from tests.pages import PAGES, ROOT, Reader, blocks, pictures
from tests.pictures import TERMINAL


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that looks like a checkout, where runs may be written. Pictures are empty: tests/plotting draws them."""
    for folder in ("models", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    for room in (drawing, report_page):
        monkeypatch.setattr(room, "render", lambda picture, *formats: [b"" for _ in formats])
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_true_from_top_to_bottom(page: Path, checkout: Path) -> None:
    reader = Reader()
    for block in blocks(page):
        try:
            reader.follow(block)
        except Exception as error:
            raise AssertionError(f"{page.name}:{block.line}: {error}") from error
    for name in pictures(page):
        assert (ROOT / "docs" / "pictures" / name).is_file(), f"{name}: make pictures"
        if name == TERMINAL:
            continue
        made = checkout / "pictures" / name.removeprefix(f"{page.stem}_")
        assert made.is_file(), f"{name}: no command of the page makes {made.name}"
