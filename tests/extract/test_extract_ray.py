"""Clips of a folder on the machines of a Ray cluster."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import make_clip

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings
from tecafn.extract.folder import _anywhere, _extract_to, _Job
from tecafn.extract.ray_jobs import run_on_ray

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sound files, one of them none, and their label.csv."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(5):
        path = root / f"v_{number}.wav"
        times = np.arange(8000) / 16_000
        sound = (0.3 * np.sign(np.sin(2 * np.pi * (100 + 20 * number) * times))).astype(np.float32)
        if number == 2:
            path.write_text("This is no sound.\n" * 20)
        else:
            make_clip(path, sounds=[sound], audio_codec="pcm_s16le")
        rows.append(["v", str(number), "the film was fine", "0.5", SPLITS[number % 3]])
    with (root / "label.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video_id", "clip_id", "text", "label", "mode"], *rows])
    return root


def extract(folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tecafn", "extract", ".", "label.csv", "--out", str(out),
               "--audio", "measures", "--words", "none", *more]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def content(store: Path) -> dict[str, bytes]:
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_local_ray_gives_the_same_store_and_the_same_rows(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed: nothing of it is tested")
    at_home = extract(folder, tmp_path / "home", "--quiet")
    far = extract(folder, tmp_path / "far", "--ray", "local", "--jobs", "2", "--quiet")
    assert (at_home.returncode, far.returncode) == (1, 1), far.stderr
    assert content(tmp_path / "far") == content(tmp_path / "home")
    rows = [(tmp_path / f"{name}.clips" / "clips.csv").read_text() for name in ("home", "far")]
    assert rows[0] == rows[1]
    assert "v_2.wav,cannot be read as video or sound" in rows[1]
    assert far.stderr == ""


def test_without_ray_the_line_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["extract", str(folder), str(folder / "label.csv"), "--out", str(tmp_path / "out"),
               "--audio", "measures", "--words", "none", "--quiet", "--ray", "local"]  # fmt: skip
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "pip install 'tecafn[video,ray]'" in error
    assert error.count("\n") == 1
    assert main([*command[:1], str(folder / "v_0.wav"), *command[3:]]) == 2
    assert "--ray is for a folder of clips" in capsys.readouterr().err
    assert list(run_on_ray(_extract_to, [], address="local")) == []


def test_a_machine_with_other_models_is_refused(folder: Path, tmp_path: Path) -> None:
    settings = ClipSettings(audio="measures", words="none")
    job = _anywhere(_Job(folder / "v_0.wav", tmp_path / "a.zip", settings, "", None))
    assert job.path.is_absolute()
    _extract_to(job, lambda _: None)
    assert job.target.exists()
    changed = _Job(job.path, job.target, settings, "", None, identity="0" * 64)
    with pytest.raises(UserError, match="has other models or another tecafn"):
        _extract_to(changed, lambda _: None)
