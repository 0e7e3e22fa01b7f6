"""Pictures and pages of example runs: an integrated one, a Laplace one, first-order ones, one on a boundary."""

from __future__ import annotations

from pathlib import Path

import pytest

import hofit
from hofit.plotting import page as page_module
from hofit.plotting.canvas import Picture
from hofit.plotting.page import page_of
from hofit.plotting.pictures import pictures_of, write_pictures
from hofit.plotting.run import open_runs
from tests.plotting.test_page import Read, needs_and_runs_nothing
from tests.plotting.test_pictures import pixels

ROOT = Path(__file__).parents[2]
ALL = ["progress", "estimates", "effects", "shrinkage"]


@pytest.mark.parametrize(
    ("model", "config", "status", "names"),
    [
        ("sleepstudy", "sleepstudy_marginal", "converged", ALL),
        ("cbpp", "cbpp_laplace", "converged", ALL),
        ("eight_schools", "eight_schools_adam", "converged", ALL[:2]),
        ("eight_schools", "eight_schools_marginal", "converged_on_boundary", ALL),
        ("neural_network", "neural_network_sgd", "converged", ALL[:2]),
    ],
)
def test_an_example_is_drawn_and_has_a_page(
    model: str, config: str, status: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / config
    result = hofit.fit(str(ROOT / "models" / f"{model}.py"), ROOT / "configs" / f"{config}.yaml", run_dir=run_dir)
    assert result.status == status
    written = write_pictures(pictures_of(open_runs([run_dir])), tmp_path / "pictures")
    assert [one.name for one in written] == names
    for one in written:
        assert pixels(one.png.read_bytes()).std() > 5.0
        assert one.svg.stat().st_size > 1000

    def written_before(picture: Picture, format: str) -> list[bytes]:
        return [(tmp_path / "pictures" / f"{picture.name}.{format}").read_bytes()]

    monkeypatch.setattr(page_module, "render", written_before)  # to draw them once more is most of this test's time
    page = Read(page_of(run_dir))
    needs_and_runs_nothing(page)
    assert status.replace("_", " ") in page.words
    assert sum(tag == "img" for tag, _ in page.tags) == len(names)
