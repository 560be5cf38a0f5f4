"""The page in a headless Chromium: a clip is dropped, its progress shown, its timeline opened."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving_stub

TOKEN = "0123456789abcdef-token"
# A drop as a browser makes it, with a file that the page has not seen before.
DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "video/mp4" }));
    const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer });
    document.getElementById("zone").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving_stub.Served]:
    """A server that wants a token and keeps clips."""
    folder = tmp_path_factory.mktemp("guarded") / "server"
    server = serving_stub.start(folder, token=TOKEN, keep_clip_hours=1.0)
    yield server
    server.stop()


def _drop(page: Any, content: bytes, name: str) -> None:
    page.evaluate(DROP, [base64.b64encode(content).decode(), name])


def _assert_accessible(page: Any, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="ACCESSIBILITY NOT TESTED: no axe-core"
    )
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_a_clip_goes_from_the_drop_to_its_timeline_and_is_deleted(
    browser: Any, guarded: serving_stub.Served, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(30_000)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: problems.extend([said.text] * (said.type == "error")))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(guarded.url)
    page.fill("#token", TOKEN)
    _assert_accessible(page, width)
    page.click("#login button")
    page.wait_for_selector("#drop", state="visible")
    assert [p for p in problems if "401" not in p] == []
    problems.clear()
    _drop(page, b"slow 2", "talk.mp4")
    page.locator("#jobs .state", has_text="decode").wait_for()
    _assert_accessible(page, width)
    page.reload()  # the job is the server's, not the page's
    page.get_by_role("button", name="Show the timeline of talk.mp4").click()
    frame = page.frame_locator("#report")
    frame.get_by_role("heading", name="A stub's report").wait_for()
    # The report is of no origin and has no cookie, yet the clip and the tables are there for it.
    until = time.monotonic() + 20
    while not any(url.endswith("/clip") for url in asked):
        assert time.monotonic() < until
        page.wait_for_timeout(50)
    page.wait_for_load_state("networkidle")
    with page.expect_download() as download:
        frame.get_by_role("link", name="timeline.csv").click()
    assert Path(download.value.path()).read_bytes().startswith(b"start")
    _assert_accessible(page, width)
    page.get_by_role("button", name="Delete talk.mp4").click()
    page.wait_for_selector("#none", state="visible")
    assert page.locator("#shown").is_hidden()
    # What plays the stub's clip says that it is none; nothing else is complained of.
    assert [p for p in problems if "401" in p or "Refused" in p or "Error" in p] == []
    assert all(url.startswith((guarded.url, "data:")) for url in asked)
    context.close()


def test_what_goes_wrong_is_said_on_the_page(browser: Any, guarded: serving_stub.Served) -> None:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.goto(guarded.url)
    page.fill("#token", "wrong")
    page.click("#login button")
    page.locator("#login-problem", has_text="wrong").wait_for()
    page.fill("#token", TOKEN)
    page.click("#login button")
    page.wait_for_selector("#drop", state="visible")
    _drop(page, b"", "empty.mp4")
    page.locator("#problem", has_text="no clip").wait_for()
    _drop(page, b"refuse", "<b>bad</b>.mp4")
    page.wait_for_selector("text=failed: cannot be read as video or sound")
    assert page.locator("#jobs b").count() == 0
    page.close()


@pytest.mark.slow
def test_a_real_clip_gets_its_timeline(browser: Any, tmp_path: Path, data_root: Path) -> None:
    clip = data_root / "clips" / "Oz06ZWiO20M_6.mp4"
    server = serving_stub.start_real(tmp_path / "server", "--keep-clip-hours", "1")
    try:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto(server.url)
        _drop(page, clip.read_bytes(), "talk.mp4")
        page.get_by_role("button", name="Show the timeline of talk.mp4").click(timeout=300_000)
        frame = page.frame_locator("#report")
        frame.get_by_role("heading", name="talk.mp4").wait_for(timeout=30_000)
        frame.get_by_text("Mean score").wait_for(timeout=30_000)
        until = time.monotonic() + 20
        while frame.locator("video").evaluate("video => video.readyState") < 2:
            assert time.monotonic() < until, "the clip does not play"
            page.wait_for_timeout(100)
        _assert_accessible(page, 400)
        page.close()
    finally:
        server.stop()
