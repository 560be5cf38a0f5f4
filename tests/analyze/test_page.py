"""The page in a browser: it asks no network, is accessible, seeks, and follows what is left out."""

from __future__ import annotations

import dataclasses
import json
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timelines import SCORER, talk, timeline, track, utterance

from tecafn.analyze.exports import write_exports
from tecafn.analyze.html import render_page, write_page
from tecafn.analyze.timeline import Timeline
from tecafn.analyze.trend import smoothed, summarised, turning_points

Open = Callable[..., Any]


def write(one: Timeline, folder: Path) -> Path:
    """The page of a timeline beside 60 seconds of a quiet tone."""
    clip = folder / "a talk.wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = 1000 * np.sin(np.arange(60 * 8000) * 0.3)
        file.writeframes(tone.astype("<i2").tobytes())
    out = folder / "a talk.analysis"
    out.mkdir(exist_ok=True)
    write_page(one, clip, out / "report.html", exports=write_exports(one, out))
    return out / "report.html"


@contextmanager
def opened(browser: Any, page: Path, *, width: int = 1200, scheme: str = "light") -> Iterator[Any]:
    """The page, ready; what goes wrong in it is an error here."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        shown = context.new_page()
        problems: list[str] = []
        shown.on("pageerror", lambda error: problems.append(str(error)))
        shown.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        shown.asked = []
        shown.on("request", lambda request: shown.asked.append(request.url))
        shown.goto(page.as_uri())
        shown.wait_for_selector("html[data-ready]")
        yield shown
        assert problems == []
    finally:
        context.close()


def until(page: Any, condition: str) -> None:
    """Wait; the page's policy forbids Playwright's own way, which evaluates inside the page."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


@pytest.fixture(scope="module")
def talk_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(talk(60.0), tmp_path_factory.mktemp("page"))


def test_the_page_asks_no_network(browser: Any, talk_page: Path) -> None:
    with opened(browser, talk_page) as page:
        page.wait_for_timeout(300)
        assert {url.partition("://")[0] for url in page.asked} == {"file"}
        assert sorted(Path(url).name for url in page.asked) == ["a%20talk.wav", "report.html"]
        assert page.evaluate("document.getElementById('media').error") is None
        policy = page.get_attribute("meta[http-equiv]", "content")
        assert "default-src 'none'" in policy
        assert "http" not in policy


def test_a_hostile_transcript_stays_text(browser: Any, tmp_path: Path) -> None:
    text = '</script><script>document.title="owned"</script> <img src=x onerror=alert(1)> "\'&'
    one = timeline([utterance(0.0, 5.0, 1.0, text=text)], duration=6.0)
    with opened(browser, write(one, tmp_path)) as page:
        assert page.title() == "talk.wav - sentiment timeline"
        assert page.locator("img").count() == 0
        assert page.inner_text("#u0 .words p") == " ".join(text.split())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_axe_finds_nothing(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="ACCESSIBILITY NOT TESTED: no axe-core"
    )
    foreign = utterance(50.0, 54.0, None, out_of_range="de")
    one = dataclasses.replace(talk(60.0), utterances=(*talk(60.0).utterances[:8], foreign))
    with opened(browser, write(one, tmp_path), width=width, scheme=scheme) as page:
        page.click("#u1 .leave-out")
        found = axe.Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_keys_and_clicks_seek(browser: Any, talk_page: Path) -> None:
    def position() -> float:
        return float(page.evaluate("timelinePage.position()"))

    with opened(browser, talk_page) as page:
        until(page, "document.getElementById('media').readyState >= 1")
        page.focus("#seek")
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        assert position() == pytest.approx(0.6)
        page.keyboard.press("PageDown")
        assert position() == pytest.approx(1.0)
        assert "score" in page.get_attribute("#seek", "aria-valuetext")
        assert page.inner_text("#now-words").startswith("I thought the first half")
        page.keyboard.press("End")
        assert position() == pytest.approx(60.0)
        page.keyboard.press("PageUp")
        assert position() > 43.0
        page.click("#u2 button.seek")
        assert position() == pytest.approx(13.0)
        assert page.locator("#u2.current").count() == 1
        page.click("#u3 .w >> nth=4")
        assert position() == pytest.approx(19.0 + 4 * 4.5 / 18, abs=0.01)
        width = page.locator("#score").bounding_box()["width"]
        page.click("#score", position={"x": width / 2, "y": 40})
        assert position() == pytest.approx(30.0, abs=0.1)
        page.click("h1")
        page.keyboard.press("ArrowLeft")
        assert position() == pytest.approx(29.4, abs=0.1)
        media = page.evaluate("document.getElementById('media').currentTime")
        assert media == pytest.approx(position(), abs=0.05)


def test_a_link_to_a_moment_leads_to_it(browser: Any, talk_page: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{talk_page.as_uri()}#t=25.5")
    page.wait_for_selector("html[data-ready]")
    until(page, "Math.abs(document.getElementById('media').currentTime - 25.5) < 0.05")
    assert page.evaluate("timelinePage.position()") == pytest.approx(25.5)
    context.close()


def test_the_timeline_follows_the_clip(browser: Any, talk_page: Path) -> None:
    with opened(browser, talk_page) as page:
        page.evaluate("document.getElementById('media').currentTime = 25.5")
        until(page, "Math.abs(timelinePage.position() - 25.5) < 0.05")
        assert page.locator("#u4.current").count() == 1


def left_out_by_python(one: Timeline, numbers: set[int]) -> dict[str, Any]:
    kept = [u for k, u in enumerate(one.utterances) if k not in numbers]
    trend = smoothed(kept, one.duration)
    told = summarised(kept, one.scorer)
    points = turning_points(trend, kept, one.scorer)
    places = [k for k in range(len(one.utterances)) if k not in numbers]
    return {
        "mean": told.mean,
        "positive": told.positive,
        "negative": told.negative,
        "seconds": told.seconds,
        "num_utterances": told.num_utterances,
        "highest": None if told.highest is None else places[told.highest],
        "lowest": None if told.lowest is None else places[told.lowest],
        "trend": list(trend.values),
        "turning": [[p.time, p.kind, p.quote] for p in points],
        "changes": [p.change for p in points],
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_left_out_is_left_out_of_summary_and_trend_as_python_would(
    browser: Any, tmp_path: Path, seed: int
) -> None:
    one = talk(58.0, seed=seed)
    with opened(browser, write(one, tmp_path)) as page:
        before = page.inner_text("#cards")
        page.fill("#from", "0:10")
        page.fill("#to", "0:27.5")
        page.click("#passage button[type=submit]")
        middles = [(u.start + u.end) / 2 for u in one.utterances]
        numbers = {k for k, middle in enumerate(middles) if 10.0 <= middle <= 27.5}
        assert len(numbers) == 3
        page.click("#u6 .leave-out")
        numbers.add(6)
        expected = left_out_by_python(one, numbers)
        told = page.evaluate("timelinePage.summarised()")
        for name in ("mean", "positive", "negative", "seconds"):
            assert told[name] == pytest.approx(expected[name], abs=1e-3), name
        for name in ("num_utterances", "highest", "lowest"):
            assert told[name] == expected[name], name
        trend = page.evaluate("timelinePage.trend()")
        assert [v is None for v in trend] == [v is None for v in expected["trend"]]
        assert [v for v in trend if v is not None] == pytest.approx(
            [v for v in expected["trend"] if v is not None], abs=1e-3
        )
        turning = page.evaluate("timelinePage.turning()")
        assert [[p["time"], p["kind"], p["quote"]] for p in turning] == expected["turning"]
        assert [p["change"] for p in turning] == pytest.approx(expected["changes"], abs=1e-3)
        assert page.locator("#turn-list li").count() == len(expected["turning"])
        assert page.locator(".utterance.left-out").count() == 4
        assert "4 utterances are left out" in page.inner_text("#left-out-note")
        assert page.inner_text("#cards") != before
        page.click("#include-all")
        assert page.inner_text("#cards") == before
        # Nothing left is said, not divided by.
        page.evaluate("timelinePage.leaveOut(0, 100)")
        assert "nothing is scored" in page.inner_text("#cards")


def test_what_the_script_says_of_the_whole_is_what_the_timeline_says(
    browser: Any, talk_page: Path
) -> None:
    one = talk(60.0)
    with opened(browser, talk_page) as page:
        told = page.evaluate("timelinePage.summarised()")
        assert told["mean"] == pytest.approx(one.summary.mean, abs=1e-3)
        assert told["highest"] == one.summary.highest
        assert page.locator("#turn-list li").count() == len(one.turning_points) > 0


def test_a_bad_passage_is_explained(browser: Any, talk_page: Path) -> None:
    with opened(browser, talk_page) as page:
        for start, end in (("x", "0:10"), ("0:10", "0:05"), ("", "")):
            page.fill("#from", start)
            page.fill("#to", end)
            page.click("#passage button[type=submit]")
            assert "Give two times" in page.inner_text("#passage-note")
        assert page.locator(".utterance.left-out").count() == 0


def test_dragging_chooses_a_passage(browser: Any, talk_page: Path) -> None:
    with opened(browser, talk_page) as page:
        page.locator("#score").scroll_into_view_if_needed()
        box = page.locator("#score").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30, steps=4)
        page.mouse.up()
        assert page.input_value("#from").startswith("0:1")
        assert page.input_value("#to").startswith(("0:29", "0:30"))


def test_words_are_coloured_by_their_effect(browser: Any, talk_page: Path) -> None:
    with opened(browser, talk_page) as page:
        first, last = page.locator("#u0 .w").first, page.locator("#u0 .w").last
        assert "pos" in first.get_attribute("class")
        assert "neg" in last.get_attribute("class")
        colours = [w.evaluate("w => getComputedStyle(w).backgroundColor") for w in (first, last)]
        assert len({*colours, "rgba(0, 0, 0, 0)"}) == 3


def test_a_clip_without_words_says_so_and_shows_its_measures(browser: Any, tmp_path: Path) -> None:
    values = [None if 10 <= k < 20 else 0.1 * (k % 7) for k in range(30)]
    one = timeline([], duration=3.0, tracks=[track("lip_corners", "face", values)])
    with opened(browser, write(one, tmp_path)) as page:
        assert "No words were found" in page.inner_text("#summary")
        assert page.locator("#passage").count() == 0
        assert "AI Act" in page.inner_text("#measures")
        assert page.inner_text("#measures h2") == "Face"
        drawn = page.evaluate(
            """() => { const c = document.querySelector('[data-track] canvas');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            return d.some((v, k) => k % 4 === 3 && v > 0); }"""
        )
        assert drawn


def test_a_clip_that_the_browser_cannot_play_has_its_timeline(browser: Any, tmp_path: Path) -> None:
    page_file = write(talk(60.0), tmp_path)
    (tmp_path / "a talk.wav").write_bytes(b"no sound")
    with opened(browser, page_file) as page:
        page.wait_for_selector("#media-note:not([hidden])")
        page.click("#u2 button.seek")
        assert page.inner_text("#now-time") == "0:13"


def test_the_note_on_the_law_stands_where_voice_or_face_are_shown() -> None:
    said = [utterance(0.0, 5.0, 1.0)]
    page = render_page(timeline(said, duration=6.0), "talk.wav")
    assert "AI Act" not in page
    shown = timeline(said, duration=6.0, tracks=[track("f0_hz", "voice", [1.0] * 60)])
    assert "Art. 5(1)(f)" in render_page(shown, "talk.wav")


def test_a_model_without_intervals_is_said_to_have_none() -> None:
    scorer = dataclasses.replace(SCORER, coverage=None)
    one = timeline([utterance(0.0, 5.0, 1.0)], duration=6.0, scorer=scorer)
    assert "no intervals: the model was not calibrated" in render_page(one, "talk.wav")
    assert "not calibrated" not in render_page(talk(20.0), "talk.wav")


@pytest.mark.slow
def test_an_hour_takes_seconds_of_the_processor_to_open_and_no_more(
    browser: Any, tmp_path: Path
) -> None:
    def spent() -> float:
        told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        return float(sum(one["cpuTime"] for one in told if one["type"] == "renderer"))

    page_file = write(talk(3600.0), tmp_path)
    before = spent()
    with opened(browser, page_file) as page:
        assert page.locator(".utterance").count() > 500
        assert spent() - before < 5.0
        assert page.is_visible("#overview")
        page.click("#zoom-out")
        page.click("#zoom-all")
        assert not page.is_visible("#overview")


def test_the_script_is_what_the_policy_names(talk_page: Path) -> None:
    text = talk_page.read_text(encoding="utf-8")
    view = text.partition('id="view">')[2].partition("</script>")[0]
    assert json.loads(view)["duration"] == 60.0
    assert text.count("<script") == 2
