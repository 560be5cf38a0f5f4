"""`tecafn analyze FOLDER`: every clip to its page, ranked; it continues after a kill."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import make_clip

from tecafn.analyze.folder import ClipRank, Moment, analyze_folder
from tecafn.analyze.html import render_folder
from tecafn.analyze.scoring import SentimentModel
from tecafn.analyze.timeline import Timeline
from tecafn.cli import main
from tecafn.extract.clip import ClipSettings

TEXTS = {"a.wav": "The film was good.", "b.wav": "Not very great.", "more/c.wav": "Awful and dull."}


def spoken(path: Path, text: str, *, seconds: float = 2.0) -> Path:
    """A hum with subtitles beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * 16_000)) / 16_000
    hum = (0.3 * np.sign(np.sin(2 * np.pi * 150 * times))).astype(np.float32)
    make_clip(path, sounds=[hum], audio_codec="pcm_s16le")
    path.with_suffix(".srt").write_text(f"1\n00:00:00,200 --> 00:00:01,800\n{text}\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        spoken(tmp_path / "clips" / name, text)
    (tmp_path / "clips" / "notes.txt").write_text("no clip")
    return tmp_path / "clips"


@pytest.fixture
def unguarded_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from tecafn.core.errors import UserError
    from tecafn.extract.guard import Outcome

    def run(function: Any, jobs: Any, **_: object) -> Any:
        for job in jobs:
            try:
                yield Outcome(job, function(job, lambda _: None))
            except UserError as error:
                yield Outcome(job, error=str(error))

    monkeypatch.setattr("tecafn.analyze.folder.run_guarded", run)


def test_clips_are_ranked_by_their_means_and_each_has_a_page(
    folder: Path,
    text_run: Path,
    unguarded_folder: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "broken.mp4").write_text("no video\n" * 50)
    assert main(["analyze", str(folder), "--model", str(text_run), "--quiet"]) == 1
    said = capsys.readouterr().out
    out = folder.parent / "clips.analysis"
    means = {
        name: Timeline.load(out / name / "timeline.json").summary.mean or 0.0 for name in TEXTS
    }
    order = [*sorted(TEXTS, key=lambda name: -means[name]), "broken.mp4"]
    with (out / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == order
    assert [float(row["mean"]) for row in rows[:3]] == sorted(means.values(), reverse=True)
    assert "cannot be read as video or sound" in rows[3]["error"]
    assert [line.partition(":")[0] for line in said.splitlines()[:4]] == order
    page = (out / "index.html").read_text(encoding="utf-8")
    for name in TEXTS:
        assert f'href="{name}/report.html"' in page
        assert (out / name / "report.html").is_file()


def test_what_is_done_is_not_done_again_and_what_is_new_is(
    folder: Path, tmp_path: Path, text_model: SentimentModel, unguarded_folder: None
) -> None:
    settings = text_model.settings(ClipSettings())
    first = analyze_folder(folder, text_model, out=tmp_path / "out", settings=settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*/*")}
    spoken(folder / "d.wav", "Fine.")
    second = analyze_folder(folder, text_model, out=tmp_path / "out", settings=settings)
    assert {rank.file for rank in second.ranks} == {*TEXTS, "d.wav"}
    assert [rank for rank in second.ranks if rank.file != "d.wav"] == list(first.ranks)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_a_result_inside_the_folder_is_not_taken_for_clips(
    folder: Path, text_model: SentimentModel, unguarded_folder: None
) -> None:
    settings = text_model.settings(ClipSettings())
    for _ in range(2):
        ranked = analyze_folder(folder, text_model, out=folder / "out", settings=settings)
    assert len(ranked.ranks) == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [([], "has no clip; one would end with"), (["--transcript", "x.srt"], "is for one clip")],
)
def test_a_folder_that_cannot_be_ranked_is_one_line(
    tmp_path: Path, text_run: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    command = ["analyze", str(tmp_path / "empty"), "--model", str(text_run), "--quiet", *more]
    assert main(command) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_fifty_clips_killed_again_and_again_end_as_if_nothing_had_been(
    folder: Path, text_run: Path, tmp_path: Path
) -> None:
    for number in range(47):
        words = ("good", "awful", "dull", "great", "fine")[number % 5]
        spoken(folder / f"n{number}.wav", f"The film was {words}.", seconds=2.0 + number % 3)
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    command = [sys.executable, "-m", "tecafn", "analyze", str(folder), "--model", str(text_run)]

    def finished() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.rglob("timeline.json")}

    for least in (1, 14, 33):
        before = finished()
        process = subprocess.Popen(
            [*command, "--out", str(out), "--quiet"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 300
            while len(finished()) < least and time.monotonic() < until:
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        done = finished()
        assert least <= len(done) < 50
        assert before.items() <= done.items()  # nothing was done again
        assert not (out / "index.html").exists()
    assert main([*command[3:], "--out", str(out), "--quiet"]) == 0
    assert len(finished()) == 50
    assert done.items() <= finished().items()
    assert main([*command[3:], "--out", str(undisturbed), "--quiet"]) == 0
    assert (out / "clips.csv").read_bytes() == (undisturbed / "clips.csv").read_bytes()
    assert (out / "index.html").exists()


RANKS = [
    ClipRank(
        file="good talk.mp4",
        page="good talk.mp4/report.html",
        duration=70.0,
        mean=1.2,
        positive=0.9,
        negative=0.1,
        num_utterances=9,
        spark=((0.0, 1.0), (0.5, None), (0.7, 2.0), (1.0, 0.5)),
        moments=(Moment(time=35.5, value=2.0, kind="peak", change=1.4, quote="a <b> & c"),),
    ),
    ClipRank(
        file="bad.wav",
        page="bad.wav/report.html",
        duration=700.0,
        mean=-1.2,
        positive=0.1,
        negative=0.9,
        num_utterances=1,
    ),
    ClipRank(file="mute.mp4", page="mute.mp4/report.html", duration=3.0),
    ClipRank(file="broken.mp4", error="it is no video"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_the_ranking_is_accessible_and_can_be_ordered(
    browser: Any, text_model: SentimentModel, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="ACCESSIBILITY NOT TESTED: no axe-core"
    )
    path = tmp_path / "index.html"
    path.write_text(render_folder("clips", RANKS, text_model.scorer), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = ".which a"
    assert page.locator(names).all_inner_texts() == ["good talk.mp4", "bad.wav", "mute.mp4"]
    page.click("[data-by=duration]")
    assert page.locator(names).all_inner_texts() == ["bad.wav", "good talk.mp4", "mute.mp4"]
    links = [link.get_attribute("href") for link in page.locator(".moments a").all()]
    assert links == ["good%20talk.mp4/report.html#t=35.5"]
    assert page.inner_text(".moments q") == "a <b> & c"
    assert "it is no video" in page.inner_text("main")
    assert asked == [path.as_uri()]
    context.close()
