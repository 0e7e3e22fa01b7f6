"""The page of a run: what stands in it, that it needs and runs nothing, and that a stranger's run stays data."""

from __future__ import annotations

import base64
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hofit.errors import RunDirectoryError
from hofit.plotting.page import page_of
from hofit.record import Estimate
from tests.plotting.runs import effects, progress_rows, write_progress, write_run

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \x1b[31m \u202egnp {{ 7 * 7 }} </pre> &amp;"


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed: pictures, which most questions about a page do not need, are left out."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_a_page_tells_standard_deviations_and_correlations(tmp_path: Path, no_matplotlib: None) -> None:
    told = {"name": HOSTILE, "estimate": 0.25, "std_error": 0.1, "lower": 0.05, "upper": 0.43}
    path = write_run(tmp_path / "run", [Estimate("mu", "", "parameter", 1.5, 0.5)], quantities=[told])
    page = Read(page_of(path))
    assert "0.050 … 0.430" in page.words and "<script>" not in page_of(path)


class Read(HTMLParser):
    """A page read by the standard library's parser: its tags, in order and closed, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = self.style = ""
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            self.style += data
        else:
            self.words += data


def needs_and_runs_nothing(page: Read) -> None:
    """No script, no handler, no address but those that hold what they name; each of these is a picture."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "a", "svg"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "srcset", "href"}:
                head, _, body = str(value).partition(",")
                assert head == "data:image/svg+xml;base64"
                assert ElementTree.fromstring(base64.b64decode(body)).tag.endswith("svg")
    assert [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"] == [POLICY]
    assert page.style and "url(" not in page.style and "@import" not in page.style


def test_the_page_has_the_verdict_first_and_all_that_a_reader_asks_for(tmp_path: Path) -> None:
    rows = [
        Estimate("beta", "0", "parameter", 251.40510484848485, 6.632277, 1.0, "adam", 238.40608, 264.40413),
        *effects("u", 15),
    ]
    run = write_run(
        tmp_path / "run",
        rows,
        status="converged_on_boundary",
        remarks=["boundary: tau runs to the edge"],
        remedy="Go on with `hofit resume RUN_DIR`.",
        shrinkage={"u": 0.5},
        config="model: a.py:model\nobjective:\n  integrate:\n    u: laplace\n",
    )
    (run / "diagnose.json").write_text('{"reading": "good enough", "remarks": ["a remark"]}')
    text = page_of(run)
    page = Read(text)
    needs_and_runs_nothing(page)
    order = ["boundary: tau runs", f"hofit resume {run}", "max-norm 1e-09", "good enough"]
    order += ["251.41", "6.63", "238.41 … 264.40", "Integrated effects", "Pictures", "a.py:model", "pip install"]
    order += [f"hofit fit --config {run}/config.yaml --run-dir run-again", "2.13.0+cpu", "5f3a", "Bingham", "Tierney"]
    places = [page.words.index(words) for words in order]
    assert places == sorted(places)
    assert sum(tag == "img" for tag, _ in page.tags) == sum(tag == "source" for tag, _ in page.tags) == 4
    assert "width=device-width" in text and "prefers-color-scheme: dark" in text


def test_a_stranger_s_run_is_data(tmp_path: Path) -> None:
    rows = [Estimate(HOSTILE, HOSTILE, role, 1.0, 0.5, 1.0, HOSTILE, 0.0, 2.0) for role in ("parameter", "integrated")]
    run = write_run(
        tmp_path / HOSTILE.replace("/", "|"),
        rows,
        config=HOSTILE,
        objective=HOSTILE,
        status=HOSTILE,
        remarks=[HOSTILE],
        remedy=HOSTILE,
        checks=[{"name": HOSTILE, "ok": None, "value": None, "message": HOSTILE}],
        versions={HOSTILE: HOSTILE, "hofit": HOSTILE},
        model_sha256={HOSTILE: HOSTILE},
        evaluations={HOSTILE: HOSTILE},
        shrinkage={HOSTILE: 0.5},
    )
    text = page_of(run)
    page = Read(text)
    needs_and_runs_nothing(page)
    assert "\x1b" not in text and "\u202e" not in text
    assert page.words.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in page.words and "49" not in re.sub(r"\d{3,}", "", page.words.partition("Checks")[0])


@pytest.mark.usefixtures("no_matplotlib")
def test_commands_quote_what_a_shell_would_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run; rm -rf $HOME", versions={"hofit": "0.1; id", "torch": "2.13.0+cpu"})
    words = Read(page_of(run)).words
    assert "pip install 'hofit==0.1; id' torch==2.13.0\n" in words
    assert f"--config '{run}/config.yaml' --run-dir 'a run; rm -rf $HOME-again'" in words


@pytest.mark.usefixtures("no_matplotlib")
def test_a_long_table_says_how_many_rows_are_left_out(tmp_path: Path) -> None:
    page = Read(page_of(write_run(tmp_path / "run", effects("w", 1000, "parameter"))))
    assert sum(tag == "tr" for tag, _ in page.tags) < 250
    assert "800 of 1000 rows are left out" in page.words


@pytest.mark.usefixtures("no_matplotlib")
def test_a_model_from_python_is_said_to_need_more_than_the_config(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config="model: null\n")
    assert "given again to hofit.fit" in Read(page_of(run)).words


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_page_is_whole_but_for_its_pictures(tmp_path: Path) -> None:
    page = Read(page_of(write_run(tmp_path / "run")))
    needs_and_runs_nothing(page)
    assert "pip install 'hofit[plot]'" in page.words
    assert not any(tag == "img" for tag, _ in page.tags)


def test_an_unfinished_run_has_no_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_progress(tmp_path / "run", progress_rows())
    with pytest.raises(RunDirectoryError, match=r"hofit plot .* draws its progress"):
        page_of(tmp_path / "run")


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize(
    "keys",
    [
        {"loss": "much"},
        {"checks": [1]},
        {"checks": [{"name": "x"}]},
        {"remarks": 3},
        {"versions": [1]},
        {"model_sha256": 4},
        {"shrinkage": [1]},
        {"evaluations": "many"},
        {"seconds": None},
        {"aic": {"a": 1}},
    ],
)
def test_a_damaged_fit_json_is_refused_or_shown_as_it_is(tmp_path: Path, keys: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", **keys)
    try:
        Read(page_of(run))
    except RunDirectoryError as error:
        assert "damaged" in str(error)
