"""The documentation site: built strictly, every page in its table of contents, nothing external."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


# In a browser


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """The page's own requests are no news."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site as a server on this machine gives it."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


PAGES = ("index.html", "paper.html", "configuration.html", "reference/tecafn.html")


@pytest.mark.parametrize("width", [1200, 400])
def test_pages_fit_the_window_ask_nobody_else_and_have_no_error(
    browser: Any, address: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    for name in PAGES:
        page.goto(address + name, wait_until="networkidle")
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, name
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []
    page.close()


def test_search_finds_a_page(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address, wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("replacement gate")
    page.get_by_text("Hard negatives and the replacement gate").first.wait_for(timeout=30_000)
    page.close()
