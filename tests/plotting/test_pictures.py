"""Pictures of run directories: what is drawn, what is left out and said, and names that are only data."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hofit.errors import HofitError, RunDirectoryError
from hofit.plotting.canvas import DARK, LIGHT, Picture, darkened, render
from hofit.plotting.caterpillar import caterpillar_picture
from hofit.plotting.forest import forest_picture
from hofit.plotting.names import shortened, visible
from hofit.plotting.pictures import pictures_of, write_pictures
from hofit.plotting.progress import progress_picture
from hofit.plotting.run import open_runs
from hofit.plotting.shrinkage import shrinkage_picture
from hofit.record import Estimate
from tests.plotting.runs import effects, progress_rows, write_progress, write_run

HOSTILE = "a$\\frac{x$ \x1b[31m <script>alert(1)</script> \u202egnp.exe 😀 漢字"


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


def test_a_run_gives_four_pictures_in_both_formats_and_none_is_blank(tmp_path: Path) -> None:
    rows = [Estimate("mu", "", "parameter", 1.0, 0.25, 1.0, "adam", 0.5, 1.5), *effects("u", 20)]
    run = write_run(tmp_path / "run", rows, shrinkage={"u": 0.25})
    written = write_pictures(pictures_of(open_runs([run])), tmp_path / "out" / "deep")
    assert [one.name for one in written] == ["progress", "estimates", "effects", "shrinkage"]
    for one in written:
        assert pixels(one.png.read_bytes()).std() > 5.0
        assert ElementTree.parse(one.svg).getroot().tag.endswith("svg")


def test_the_same_run_gives_the_same_bytes_and_a_dark_page_another_ground(tmp_path: Path) -> None:
    (run,) = open_runs([write_run(tmp_path / "run")])
    picture = forest_picture(run)
    assert picture is not None
    png, svg = render(picture, "png", "svg")
    assert render(picture, "svg", "png") == [svg, png]
    assert "#" + "".join(f"{int(part):02x}" for part in pixels(png)[0, 0]) == LIGHT.ground
    dark = darkened(svg).decode()
    assert all(colour not in dark for colour in LIGHT.colours())
    assert {colour.upper() for colour in DARK.colours()[:5]} <= set(re.findall("#[0-9A-F]{6}", dark))


def axes_of(picture: Picture | None) -> list:  # type: ignore[type-arg]
    assert picture is not None
    return picture.draw(LIGHT).axes


def test_the_loss_is_its_distance_above_the_best_and_the_best_stands_at_rounding(tmp_path: Path) -> None:
    (run,) = open_runs([write_run(tmp_path / "run")])
    by_iteration, by_time, gradient, *_ = axes_of(progress_picture([run]))
    x, y = by_iteration.get_lines()[0].get_data()
    assert by_iteration.get_yscale() == gradient.get_yscale() == "log"
    np.testing.assert_array_equal(x, range(10))
    losses = np.array([12.5 + 10.0**-i for i in range(10)])
    np.testing.assert_allclose(y[:-1], losses[:-1] - losses[-1], rtol=0)
    assert y[-1] == np.finfo(float).eps * losses[-1]
    np.testing.assert_allclose(by_time.get_lines()[0].get_xdata(), 0.01 * np.arange(1, 11))


def test_radii_are_drawn_by_part_with_the_steps_refused(tmp_path: Path) -> None:
    (run,) = open_runs([write_run(tmp_path / "run")])
    radii = axes_of(progress_picture([run]))[4]
    line, refused = radii.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), 2.0 ** np.arange(10))
    assert list(refused.get_xdata()) == [2]


def test_a_fit_without_radii_has_no_panel_for_them(tmp_path: Path) -> None:
    (run,) = open_runs([write_run(tmp_path / "run", progress=progress_rows(radius=False))])
    assert len(axes_of(progress_picture([run]))) == 4


def test_runs_of_one_function_share_the_best_loss_and_others_do_not(tmp_path: Path) -> None:
    low, high = write_run(tmp_path / "low"), write_run(tmp_path / "high", progress=progress_rows(3))
    other = write_run(tmp_path / "other", progress=progress_rows(3), data_sha256={"arguments": "cc"})
    shared, apart = progress_picture(open_runs([low, high])), progress_picture(open_runs([low, other]))
    assert shared is not None and apart is not None
    assert shared.notes == ["The best loss of all runs is 12.5."]
    assert "its own run's best" in apart.notes[0]
    last = [axes_of(one)[0].get_lines()[1].get_ydata()[-1] for one in (shared, apart)]
    assert last == [pytest.approx(0.01, rel=1e-6), np.finfo(float).eps * 12.51]


def test_runs_of_one_name_have_labels_and_files_of_their_own(tmp_path: Path) -> None:
    runs = open_runs([write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")])
    assert [run.label for run in runs] == ["run", "run-2"]
    assert [one.name for one in pictures_of(runs)] == ["progress", "estimates-run", "estimates-run-2"]


def test_what_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    rows = progress_rows()
    broken = [*rows[:3], type(rows[3])(3, math.inf, None, math.nan, None, 0.04, rows[3].parts), *rows[4:]]
    (run,) = open_runs([write_run(tmp_path / "run", progress=broken)])
    picture = progress_picture([run])
    loss = axes_of(picture)[0].get_lines()[0].get_ydata()
    assert np.isnan(loss[3]) and np.isfinite(np.delete(loss, 3)).all()
    nothing = [type(rows[0])(i, math.nan, None, math.nan, None, 0.0, ()) for i in range(3)]
    write_progress(run.path, nothing)
    empty = progress_picture(open_runs([run.path]))
    assert empty is not None and pixels(*render(empty, "png")).std() > 1.0


def test_a_long_run_is_thinned_and_says_so(tmp_path: Path) -> None:
    rows = [
        type(one)(i, 1.0 + 1.0 / (i + 1), None, 1.0, None, 0.001 * i, ())
        for i in range(9000)
        for one in progress_rows(1)
    ]
    (run,) = open_runs([write_run(tmp_path / "run", progress=rows)])
    picture = progress_picture([run])
    x = axes_of(picture)[0].get_lines()[0].get_xdata()
    assert list(x[:50]) == list(range(50)) and x[-1] == 8999
    assert 2000 < len(x) <= 4000 and np.diff(x).min() > 0 and np.diff(x).max() < 6
    assert picture is not None and "At most 4000 rows" in picture.notes[1]


def test_an_unfinished_run_has_its_progress_alone_and_a_torn_row_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    write_progress(path, progress_rows())
    with (path / "progress.csv").open("a") as file:
        file.write("10,12.5,,1e-")
    (run,) = open_runs([path])
    assert run.progress["iteration"] == list(range(10))
    assert [one.name for one in pictures_of([run])] == ["progress"]


@pytest.mark.parametrize(
    "text",
    [
        "iteration\n0\n",
        "iteration,loss,gradient_norm,seconds\n0,1\n1,2,3,4\n",
        "\0\n",
        "iteration,loss,gradient_norm,seconds\nx,1,1,1\n",
    ],
)
def test_a_damaged_progress_is_refused(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "progress.csv").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"damaged progress\.csv"):
        open_runs([run])


def test_the_forest_shows_a_readable_number_and_says_how_many_are_left_out(tmp_path: Path) -> None:
    rows = [row for i in range(30) for row in effects(f"w{i}", 400, "parameter")]
    (run,) = open_runs([write_run(tmp_path / "run", rows)])
    picture = forest_picture(run)
    assert picture is not None
    assert sum(len(axes.get_yticks()) for axes in axes_of(picture)) == 48
    assert "388 of 400 numbers of w0" in picture.notes[-1]
    assert "26 of 30 sites with 10400 numbers" in picture.notes[-1]


def test_the_forest_shows_intervals_as_given_and_what_has_none_as_such(tmp_path: Path) -> None:
    rows = [
        Estimate("sd", "", "parameter", 2.0, 0.5, None, None, 1.25, 3.5),
        Estimate("simplex", "0", "parameter", 0.5, 0.125, None, None, None, None),
        Estimate("edge", "", "parameter", 1e-9, None, None, None, None, None),
        Estimate("nothing", "", "parameter", None, None),
    ]
    (run,) = open_runs([write_run(tmp_path / "run", rows)])
    picture = forest_picture(run)
    sd, simplex, edge = axes_of(picture)
    assert sd.collections[0].get_segments()[0][:, 0].tolist() == [1.25, 3.5]
    np.testing.assert_allclose(simplex.collections[0].get_segments()[0][:, 0], [0.2550045, 0.7449955], rtol=1e-7)
    assert not edge.collections and list(edge.get_xticks()) == []
    assert picture is not None and [note.split(":")[0] for note in picture.notes] == ["Dashed", "Hollow"]


def test_effects_are_sorted_and_the_middle_of_many_is_left_out(tmp_path: Path) -> None:
    rows = effects("u", 85)
    (run,) = open_runs([write_run(tmp_path / "run", rows)])
    picture = caterpillar_picture(run)
    (axes,) = axes_of(picture)
    dots = axes.get_lines()[0].get_xdata()
    ordered = sorted(row.estimate or 0.0 for row in rows)
    assert list(dots) == ordered[:25] + ordered[-25:]
    assert len(axes.get_yticks()) == 51
    assert picture is not None and picture.notes == ["u: 35 between left out"]


def test_coefficients_have_panels_where_their_pooling_tells_them_apart(tmp_path: Path) -> None:
    rows = [
        Estimate("b", f"{i},{j}", "integrated", i - j, 1.0, None, None, i - j - 2.0, i - j + 2.0)
        for i in range(5)
        for j in range(2)
    ]
    told = open_runs([write_run(tmp_path / "told", rows, shrinkage={"b": [0.1, 0.2]})])[0]
    untold = open_runs([write_run(tmp_path / "untold", rows)])[0]
    assert [axes.get_title(loc="left") for axes in axes_of(caterpillar_picture(told))] == ["b[·,0]", "b[·,1]"]
    assert [axes.get_title(loc="left") for axes in axes_of(caterpillar_picture(untold))] == ["b"]


def test_pooling_factors_are_those_of_the_run(tmp_path: Path) -> None:
    (run,) = open_runs([write_run(tmp_path / "run", shrinkage={"b": [0.25, None], "c": 0.5, "odd": 7.0})])
    (axes,) = axes_of(shrinkage_picture(run))
    assert list(axes.get_lines()[0].get_xdata()) == [0.25, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b[·,0]", "c"]


def test_names_are_shown_and_never_interpreted(tmp_path: Path) -> None:
    rows = [Estimate(HOSTILE, "0", "parameter", 1.0, 0.5, 1.0, None, 0.0, 2.0), *effects(HOSTILE + "u", 15)]
    paths = [write_run(tmp_path / name, rows, shrinkage={HOSTILE: 0.5}) for name in ("$run{$", "<b>")]
    for picture in pictures_of(open_runs(paths)):
        for drawn in render(picture, "png", "svg"):
            assert b"<script" not in drawn and b"\x1b[31m" not in drawn


def test_hidden_characters_are_written_out_and_long_names_cut_in_the_middle() -> None:
    assert visible("a\x1b[0m\u202eb\r\n\x00") == "a\\x1b[0m\\u202eb\\r\\n\\x00"
    assert visible("sd_days α 漢") == "sd_days α 漢"
    assert visible("a\nb\tc", keep="\n\t") == "a\nb\tc"
    assert shortened("x" * 100 + "[0,1]", 20) == "xxxxxxxxx…xxxxx[0,1]"


def test_a_user_s_own_style_is_left_out(tmp_path: Path) -> None:
    import matplotlib

    (run,) = open_runs([write_run(tmp_path / "run")])
    picture = forest_picture(run)
    assert picture is not None
    plain = render(picture, "svg")
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9.0}):
        assert render(picture, "svg") == plain
        assert matplotlib.rcParams["text.usetex"] is True


def test_without_matplotlib_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = open_runs([write_run(tmp_path / "run")])
    picture = forest_picture(run)
    assert picture is not None
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(HofitError, match=r"pip install 'hofit\[plot\]'"):
        render(picture, "png")
