"""hofit plot and hofit report --html: files, what is said, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Hofit
from tests.plotting.runs import progress_rows, write_progress, write_run


def test_plot_writes_both_files_of_each_picture_and_names_them(tmp_path: Path, hofit: Hofit) -> None:
    run = write_run(tmp_path / "run")
    outcome = hofit("plot", run)
    assert (outcome.code, outcome.err) == (0, "")
    files = [Path(name) for name in outcome.out.split()]
    assert [file.relative_to(run / "pictures").name for file in files] == [
        f"{name}.{format}" for name in ("progress", "estimates") for format in ("png", "svg")
    ]
    assert all(file.is_file() for file in files)


def test_plot_of_several_runs_overlays_them_where_it_is_told(tmp_path: Path, hofit: Hofit) -> None:
    runs = [write_run(tmp_path / name, progress=progress_rows(radius=False)) for name in "ab"]
    outcome = hofit("plot", *runs, "--out", tmp_path / "out", "--json")
    printed = json.loads(outcome.out)
    assert [one["name"] for one in printed["pictures"]] == ["progress", "estimates-a", "estimates-b"]
    assert printed["unfinished"] == []
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_plot_and_the_page_import_neither_torch_nor_a_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", progress=())
    code = f"""
import sys
from hofit.cli.app import main
for arguments in (["plot", {str(run)!r}], ["report", {str(run)!r}, "--html", {str(tmp_path / "a.html")!r}]):
    sys.argv = ["hofit", *arguments]
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code, leaving.code
loaded = {{"torch", "pyro", "hofit.model", "hofit.run"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"wrote {tmp_path / 'a.html'}\n")


def test_an_unfinished_run_is_drawn_and_said_to_be_so(tmp_path: Path, hofit: Hofit) -> None:
    (tmp_path / "run").mkdir()
    write_progress(tmp_path / "run", progress_rows())
    outcome = hofit("plot", tmp_path / "run")
    assert outcome.code == 0
    assert "only its progress is drawn" in outcome.err
    assert hofit("report", tmp_path / "run", "--html", tmp_path / "a.html").code == 2


@pytest.mark.parametrize("command", [["plot"], ["report", "--html", "page.html"]])
@pytest.mark.parametrize("what", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_refused(
    tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch, command: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    outcome = hofit(*command, what)
    assert (outcome.code, outcome.out) == (2, "")
    assert what in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "page.html").exists()


def test_where_nothing_can_be_written_is_said(tmp_path: Path, hofit: Hofit) -> None:
    run, file = write_run(tmp_path / "run", progress=()), tmp_path / "file"
    file.touch()
    for command in (["plot", run, "--out", file], ["report", run, "--html", file / "a.html"]):
        outcome = hofit(*command)
        assert outcome.code == 2
        assert str(file) in outcome.err and "cannot be written" in outcome.err


def test_without_matplotlib_plot_hints_and_the_page_does_without(
    tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plotted = hofit("plot", run)
    assert (plotted.code, plotted.out) == (2, "")
    assert plotted.err == "hofit: pictures need matplotlib: pip install 'hofit[plot]'\n"
    reported = hofit("report", run, "--html", tmp_path / "a.html")
    assert (reported.code, (tmp_path / "a.html").is_file()) == (0, True)
    assert "pip install 'hofit[plot]'" in reported.err


@pytest.mark.parametrize("level", ["5", "1", "nan"])
def test_a_damaged_profile_is_one_message_from_plot_and_page(tmp_path: Path, hofit: Hofit, level: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "profile.csv").write_text(f"name,index,level,estimate,lower,upper,remark\nmu,,{level},1,0.5,1.5,\n")
    (run / "profile_points.csv").write_text("name,index,value,zeta,loss\nmu,,0,-4,20\nmu,,1,0,12\nmu,,2,4,20\n")
    for command in (["plot", run], ["report", run, "--html", tmp_path / "a.html"]):
        outcome = hofit(*command)
        assert (outcome.code, "damaged profile.csv" in outcome.err) == (2, True)
    assert not (tmp_path / "a.html").exists()


def test_the_dashed_line_of_a_profile_has_the_slope_of_the_standard_error(tmp_path: Path) -> None:
    from hofit.plotting.canvas import LIGHT
    from hofit.plotting.profile import profile_picture
    from hofit.plotting.run import open_runs

    run = write_run(tmp_path / "run")  # mu is 1, its error 0.25
    (run / "profile.csv").write_text("name,index,level,estimate,lower,upper,remark\nmu,,0.95,1,0.5,1.9,\n")
    points = "".join(f"mu,,{1 + d},{4 * d - 1.5 * d * d},12\n" for d in (-0.5, -0.25, 0, 0.3, 0.6, 0.9))
    (run / "profile_points.csv").write_text(f"name,index,value,zeta,loss\n{points}")
    picture = profile_picture(open_runs([run])[0])
    assert picture is not None
    axes = picture.draw(LIGHT).axes[0]
    (dashed,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    drawn = np.array(dashed.get_xydata(), dtype=np.float64)
    assert drawn[:, 1] == pytest.approx(4.0 * (drawn[:, 0] - 1.0))


@pytest.fixture
def fitted(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory, here, of a run of m.py, whose pictures are not drawn: that takes seconds."""
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(
        "import torch, pyro, pyro.distributions as dist\n"
        "def model(y):\n"
        "    a = pyro.param('a', torch.zeros(()))\n"
        "    with pyro.plate('rows', 4):\n"
        "        pyro.sample('obs', dist.Normal(a, 1.0), obs=y)\n"
    )
    Path("d.csv").write_text("y\n1\n2\n3\n5\n")
    Path("c.yaml").write_text("data: {path: d.csv, columns: {y: y}}\noptimizers: [{params: '*', optimizer: newton}]\n")
    assert hofit("fit", "m.py", "-c", "c.yaml", "--run-dir", "run", "-q").code == 0
    monkeypatch.setattr("hofit.plotting.pictures.write_pictures", lambda pictures, out: [])
    return Path("run")


def test_residuals_are_made_once(fitted: Path, hofit: Hofit) -> None:
    assert hofit("plot", fitted).code == 0
    made = fitted / "residuals.csv"
    rows = made.read_text().splitlines(keepends=True)
    assert len(rows) == 5
    made.write_text("".join(rows[:3]))
    assert hofit("plot", fitted).code == 0
    assert made.read_text() == "".join(rows[:3])


def test_plot_takes_the_option_that_its_refusal_of_a_changed_model_names(
    fitted: Path, hofit: Hofit, tmp_path: Path
) -> None:
    model, ran = Path("m.py"), tmp_path / "ran"
    model.write_text(f"{model.read_text()}open({str(ran)!r}, 'w').close()\n")
    refused = hofit("plot", fitted)
    assert (refused.code, "--allow-changed" in refused.err) == (0, True)
    assert not ran.exists(), "a changed model was run"
    assert hofit("plot", fitted, "--allow-changed").code == 0
    assert ran.exists() and (fitted / "residuals.csv").is_file()


def test_of_a_guide_s_fit_it_is_said_that_it_has_no_data_to_be_drawn(
    tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(
        "import torch, pyro, pyro.distributions as dist\n"
        "def model():\n"
        "    a = pyro.sample('a', dist.Normal(0.0, 1.0))\n"
        "    pyro.sample('obs', dist.Normal(a, 1.0), obs=torch.tensor(1.0))\n"
    )
    Path("c.yaml").write_text(
        "objective: {type: elbo, autoguide: normal}\noptimizers: [{params: '*', optimizer: adam}]\n"
        "stop: {max_iterations: 2}\n"
    )
    assert hofit("fit", "m.py", "-c", "c.yaml", "--run-dir", "run", "-q").code == 3
    monkeypatch.setattr("hofit.plotting.pictures.write_pictures", lambda pictures, out: [])  # drawing takes seconds
    said = hofit("plot", "run").err
    assert "an elbo fit has a guide instead of a mode" in said and "observes no site" not in said
