"""The mistakes of newcomers: each message says what, where, and the edit that mends it; none ends with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.mistakes import MISTAKES, Mistake, page
from tests.command_line import Hofit

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_of_errors_is_made_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.cli.mistakes > docs/errors.md"


def test_there_are_forty_and_no_two_alike() -> None:
    assert len({one.done for one in MISTAKES}) == len(MISTAKES) >= 40


@pytest.mark.parametrize("one", MISTAKES, ids=[one.done for one in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_its_edit(folder: Path, hofit: Hofit, one: Mistake) -> None:
    for name, text in one.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, old, new in one.edits:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    outcome = hofit(*one.command)
    assert outcome.code == one.code, outcome.text
    for part in (one.what, one.where, one.edit):
        assert part in outcome.text, outcome.text
    assert "Traceback" not in outcome.text
    if one.code == 2:
        assert outcome.out == "" and not (folder / "runs").exists()
