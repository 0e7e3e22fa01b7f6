"""What a fit shows while it goes: a growing table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from hofit.record import PartReport, Progress
from hofit.report.progress import ProgressTable, part_text, plain_line
from hofit.report.remaining import Remaining


def console(terminal: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, highlight=False)


def text_of(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def record(iteration: int, *parts: PartReport, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "loss": 12.5 - iteration,
        "change": None if iteration == 0 else -1.0,
        "gradient_norm": 0.25,
        "step_norm": None if iteration == 0 else 1e-3,
        "seconds": 0.125,
    }
    return Progress(iteration, parts=list(parts), **{**values, **changes})


def shown(every: int, last: int, terminal: bool = False, width: int = 120) -> list[str]:
    screen = console(terminal, width)
    table = ProgressTable(screen, every)
    for iteration in range(last + 1):
        table.on_iteration(record(iteration, PartReport("adam")), lambda: None)
    table.finish()
    return text_of(screen).splitlines()


def iterations(lines: list[str]) -> list[int]:
    words = [line.split() for line in lines]
    return [int(w[1] if w[0] == "iteration" else w[0]) for w in words if w[0] == "iteration" or w[0].isdecimal()]


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [(10, 25, [0, 10, 20, 25]), (10, 20, [0, 10, 20]), (1, 3, [0, 1, 2, 3]), (50, 7, [0, 7]), (10, 0, [0])],
)
def test_every_so_many_iterations_and_the_last_are_shown_once(every: int, last: int, expected: list[int]) -> None:
    assert iterations(shown(every, last)) == expected
    assert iterations(shown(every, last, terminal=True)[1:]) == expected


def test_a_resumed_fit_shows_its_first_iteration() -> None:
    screen = console(False)
    table = ProgressTable(screen, 10)
    for iteration in (13, 14, 20):
        table.on_iteration(record(iteration), lambda: None)
    assert iterations(text_of(screen).splitlines()) == [13, 20]


def test_a_plain_line_holds_names_and_numbers() -> None:
    line = plain_line(record(7, PartReport("newton", 0.5), PartReport("trust_region", 2.0, True), PartReport("adam")))
    words = line.split()
    assert words[:4] == ["iteration", "7", "loss", "5.5"]
    for pair in ("gradient 2.50e-01", "step 1.00e-03", "newton radius 0.5", "trust_region radius 2 accepted"):
        assert pair in line
    assert "adam" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (PartReport("adam"), "–"),
        (PartReport("newton", 0.125), "radius 0.125"),
        (PartReport("lbfgs", None, True), "accepted"),
        (PartReport("newton", 1e-9, False), "radius 1e-09 refused"),
    ],
)
def test_a_part_shows_its_trust_radius_and_whether_it_was_accepted(part: PartReport, text: str) -> None:
    assert part_text(part) == text


def test_the_table_has_one_head_and_columns_that_line_up() -> None:
    lines = shown(1, 12, terminal=True)
    assert sum("iteration" in line for line in lines) == 1
    head = lines[0]
    rows = [line for line in lines if line.strip()[:1].isdecimal()]
    assert len(rows) == 13
    assert {len(line) for line in rows} == {len(head)}
    for title in ("loss", "gradient", "step", "seconds"):
        right = head.index(title) + len(title)
        assert all(row[right - 1] != " " and row[right : right + 1] in (" ", "") for row in rows), title


@pytest.mark.parametrize("width", [60, 80, 92, 100, 140])
def test_rows_stand_under_the_head_that_was_chosen_before_the_first_step(width: int) -> None:
    first = [PartReport("trust_region", judges=True), PartReport("adam")]
    screen = console(True, width)
    table = ProgressTable(screen, 1)
    table.on_iteration(record(0, *first), lambda: None)
    for radius, accepted in ((7.94, True), (0.00123, False), (1093.7, True)):
        parts = [PartReport("trust_region", radius, accepted, True), PartReport("adam")]
        table.on_iteration(record(1, *parts), lambda: None)
    lines = text_of(screen).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= max(width, 77)
    ends = [lines[0].index("gradient") + len("gradient"), lines[0].index("trust_region") + len("trust_region")]
    assert all(line[end - 1] != " " and line[end] == " " for line in [lines[0], *lines[2:]] for end in ends)


def test_a_screen_that_changes_its_width_gets_a_head_for_the_new_columns() -> None:
    screen = console(True, 140)
    table = ProgressTable(screen, 1)
    table.on_iteration(record(0, PartReport("lbfgs", judges=True)), lambda: None)
    screen.width = 80
    table.on_iteration(record(1, PartReport("lbfgs", 0.5, True, True)), lambda: None)
    heads = [line for line in text_of(screen).splitlines() if "iteration" in line]
    assert ["change" in head for head in heads] == [True, False]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_cuts_no_row_in_two(width: int) -> None:
    assert len(shown(1, 3, terminal=True, width=width)) == len(shown(1, 3, terminal=True, width=200))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300, -123456789.123456])
def test_any_number_is_shown(number: float) -> None:
    screen = console(True)
    table = ProgressTable(screen, 1)
    table.on_iteration(record(1, loss=number, gradient_norm=abs(number), step_norm=abs(number)), lambda: None)
    assert f"{number:.10g}" in text_of(screen)


def test_a_part_with_brackets_in_its_name_is_shown_as_it_is() -> None:
    for terminal in (False, True):
        screen = console(terminal)
        ProgressTable(screen, 1).on_iteration(record(0, PartReport("mine[red]", 1.0)), lambda: None)
        assert "mine[red]" in text_of(screen)


def test_a_refused_step_is_marked_in_colour() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard", highlight=False)
    table = ProgressTable(screen, 1)
    table.on_iteration(record(1, PartReport("trust_region", 1.0, True)), lambda: None)
    accepted = text_of(screen)
    table.on_iteration(record(2, PartReport("trust_region", 0.5, False)), lambda: None)
    assert "\x1b[33m" not in accepted
    assert "\x1b[33m" in text_of(screen)


@pytest.mark.parametrize(
    ("width", "missing"), [(120, []), (90, ["change"]), (80, ["change", "step"]), (40, ["seconds"])]
)
def test_a_narrow_screen_does_without_some_columns(width: int, missing: list[str]) -> None:
    screen = console(True, width)
    table = ProgressTable(screen, 1)
    for iteration in range(2):
        table.on_iteration(record(iteration, PartReport("trust_region", 7.94, True)), lambda: None)
    lines = text_of(screen).splitlines()
    assert not any(title in lines[0].split() for title in missing) and "gradient" in lines[0]
    assert width == 40 or all(len(line) <= width for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_time_left_and_evaluations_stand_behind_a_row_where_there_is_room(terminal: bool) -> None:
    for width, fits in ((160, True), (80, not terminal)):
        screen = console(terminal, width)
        table = ProgressTable(screen, 10, Remaining(None, 120, None), lambda: {"loss": 12, "hvp": 0})
        for iteration in range(60):
            table.on_iteration(record(iteration, PartReport("adam"), seconds=float(iteration)), lambda: None)
        last = text_of(screen).splitlines()[-1]
        assert ("about 70 s left" in last) == fits, last
        assert ("loss 12" in last) and (len(last) <= width or not terminal), last
