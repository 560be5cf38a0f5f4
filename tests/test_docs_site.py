"""The documentation site: built strictly, every page in its table of contents, nothing external."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("zensical", reason="the site needs tecafn[docs]")
pytest.importorskip("latex2mathml", reason="the site needs tecafn[docs]")

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def make_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_site", DOCS / "make_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(make_site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    make_site.build(out)
    return out


def test_a_page_loads_nothing_from_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"?([^\" >]+)", text
        )
        for link in re.findall(r"<link\b[^>]*>", text):
            if re.search(r"rel=\"?(?:stylesheet|preload|prefetch|preconnect|icon|manifest)", link):
                loaded += re.findall(r"href=\"?([^\" >]+)", link)
        outside = [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)]
        assert outside == [], page
        # What the theme's script would fetch if it met it.
        assert 'class="mermaid"' not in text, page
        assert 'data-md-component="source"' not in text, page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text), sheet


def test_every_page_is_in_the_table_of_contents(site: Path) -> None:
    config = tomllib.loads((DOCS / "zensical.toml").read_text(encoding="utf-8"))["project"]

    def pages(entries: object) -> list[str]:
        if isinstance(entries, str):
            return [entries]
        if isinstance(entries, dict):
            return [name for value in entries.values() for name in pages(value)]
        assert isinstance(entries, list)
        return [name for entry in entries for name in pages(entry)]

    listed = pages(config["nav"])
    written = {path.name for path in DOCS.glob("*.md")}
    assert written <= set(listed)
    for name in listed:
        assert (site / name).with_suffix(".html").is_file() or name == "results/README.md"
    assert config["theme"]["font"] is False


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    page = (site / "paper.html").read_text(encoding="utf-8")
    assert page.count("<math") >= 7
    assert "```" not in page
    assert "\\\\mathcal" not in re.sub(r"<annotation.*?</annotation>", "", page)


def test_the_reference_has_what_is_public(site: Path) -> None:
    import tecafn

    page = (site / "reference" / "tecafn.html").read_text(encoding="utf-8")
    for name in tecafn.__all__:
        assert f">{name}</code>" in page or f"<code>{name}" in page, name
    assert "Choose the epoch" not in page
    assert "choose the epoch on the validation split" in page


def test_a_link_that_leads_nowhere_ends_the_build(
    make_site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copy = shutil.copytree(DOCS, tmp_path / "docs")
    (copy / "limits.md").write_text("# Limits\n\n[gone](nowhere.md)\n", encoding="utf-8")
    monkeypatch.setattr(make_site, "DOCS", copy)
    monkeypatch.setattr(make_site, "REFERENCE", ())
    with pytest.raises(RuntimeError, match="page does not exist"):
        make_site.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()
