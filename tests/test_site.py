"""The site of ``make docs``: it builds without a warning, and its reference pages hold what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hofit.config.json_schema import config_schema
from hofit.optim.registry import registry
from hofit.version import __version__
from tests.pages import ROOT

pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install '.[docs]'")
pytest.importorskip("material", reason="the site needs mkdocs-material: pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``mkdocs build --strict`` does: a link or an anchor that leads nowhere ends it."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    place = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(place), strict=True))
    return place


def test_the_front_page_is_the_readme_and_its_pictures_are_there(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "From data to an answer" in page
    for name in re.findall(r'src="(pictures/[^"]+)"', page):
        assert (site / name).stat().st_size > 0


def test_the_reference_of_configs_has_every_key_of_the_schema(site: Path) -> None:
    page = (site / "reference" / "config" / "index.html").read_text(encoding="utf-8")
    schema = config_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert {key for key in keys if f"<td><code>{key}</code></td>" not in page} == set()


def test_the_reference_of_optimizers_has_every_optimizer_and_option(site: Path) -> None:
    page = (site / "reference" / "optimizers" / "index.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="([^"]+)">(.*?)(?=<h2|</article>)', page, re.DOTALL))
    for name, spec in registry().items():
        missing = {option.name for option in spec.options if f"<code>{option.name}</code>" not in sections[name]}
        assert missing == set(), name


def test_a_page_of_the_gallery_shows_the_model_as_it_is(site: Path) -> None:
    page = (site / "gallery" / "state_space" / "index.html").read_text(encoding="utf-8")
    assert "The local level model; the first level has a flat prior" in page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:')
    assert [path for path in site.rglob("*.html") if loaded.search(path.read_text(encoding="utf-8"))] == []


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
