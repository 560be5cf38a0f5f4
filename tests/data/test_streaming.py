"""Import takes a small, constant amount of memory whatever the source's size."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

WIDTH = 128
FRAMES = 2048  # of a clip: 1 MB
CLIPS = 16  # of a video
BLOCK = np.random.default_rng(0).normal(size=(FRAMES, WIDTH)).astype(np.float32)


def _tables(folder: Path, num_clips: int) -> list[tuple[str, str]]:
    """label.csv and segment_times.csv; (video, clip) of each row."""
    clips = [(f"v{n // CLIPS}", str(n % CLIPS)) for n in range(num_clips)]
    (folder / "label.csv").write_text(
        "video_id,clip_id,text,label,mode\n"
        + "".join(f"{video},{clip},fine,1,train\n" for video, clip in clips)
    )
    (folder / "segment_times.csv").write_text(
        "video_id,segment,start,end\n"
        + "".join(
            f"{video},{clip},{int(clip) * FRAMES},{(int(clip) + 1) * FRAMES}\n"
            for video, clip in clips
        )
    )
    return clips


def _npz(folder: Path, num_clips: int) -> dict[str, str]:
    clips = _tables(folder, num_clips)
    ids, offsets = io.BytesIO(), io.BytesIO()
    np.save(ids, [f"{video}_{clip}" for video, clip in clips])
    np.save(offsets, np.arange(num_clips + 1) * FRAMES)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (num_clips * FRAMES, WIDTH)}
    )
    with zipfile.ZipFile(folder / "audio.npz", "w") as archive:
        archive.writestr("ids.npy", ids.getvalue())
        archive.writestr("offsets.npy", offsets.getvalue())
        with archive.open("audio.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(num_clips):
                member.write(BLOCK.tobytes())
    return {"format": "label-csv", "source": "label.csv", "audio": "audio.npz"}


def _clip_arrays(folder: Path, num_clips: int) -> dict[str, str]:
    for video, clip in _tables(folder, num_clips):
        (folder / "audio" / video).mkdir(parents=True, exist_ok=True)
        np.save(folder / "audio" / video / f"{clip}.npy", BLOCK)
    return {"format": "clip-arrays", "source": "."}


def _csd(folder: Path, num_clips: int) -> dict[str, str]:
    clips = _tables(folder, num_clips)
    length = CLIPS * FRAMES
    times = np.stack([np.arange(length), np.arange(1, length + 1)], axis=1).astype(np.float64)
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "w") as file:
        for video in dict.fromkeys(video for video, _ in clips):
            entry = file.create_group(f"CMU_MOSI_COVAREP/data/{video}")
            entry.create_dataset("intervals", data=times)
            entry.create_dataset("features", data=np.tile(BLOCK, (CLIPS, 1)))
    return {"format": "csd-frames", "source": "."}


SOURCES: dict[str, Callable[[Path, int], dict[str, str]]] = {
    "npz": _npz,
    "clip-arrays": _clip_arrays,
    "csd": _csd,
}

_IMPORT = """
import json, pathlib, sys, threading
sys.path.insert(0, {src!r})
import h5py
from tecafn.data import ReadOptions, import_dataset

def memory(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024

def watch():
    while not done.wait(0.02):
        peak[0] = max(peak[0], memory("RssAnon:"))

how = json.loads(sys.argv[1])
audio = pathlib.Path(how["audio"]) if "audio" in how else None
start, peak, done = memory("RssAnon:"), [0.0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
store = import_dataset(pathlib.Path(how["source"]), format=how["format"],
                       out=pathlib.Path("store"), options=ReadOptions(audio=audio))
done.set()
watcher.join()
print(json.dumps([peak[0] - start, memory("VmHWM:"), len(store.split("train"))]))
"""


def _import(name: str, folder: Path, num_clips: int) -> tuple[float, float]:
    """MB of anonymous memory above the start, and of all memory, that the import took at most."""
    how = SOURCES[name](folder, num_clips)
    src = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(src=src), json.dumps(how)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    anonymous, peak, count = json.loads(done.stdout)
    assert count == num_clips
    return anonymous, peak


@pytest.mark.parametrize("name", SOURCES)
def test_import_streams(name: str, tmp_path: Path) -> None:
    anonymous, _ = _import(name, tmp_path, 12 * CLIPS)  # 192 MB
    shutil.rmtree(tmp_path / "store")
    assert anonymous < 64, f"{anonymous:.0f} MB for a source of {12 * CLIPS} MB"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SOURCES)
def test_import_of_10_gb_needs_at_most_2_gb(name: str, tmp_path: Path) -> None:
    num_clips = 10_000
    free = shutil.disk_usage(tmp_path).free / 2**30
    if free < 25:
        pytest.skip(f"10 GB NOT TESTED: needs 25 GB of free disk, {free:.0f} GB are free")
    try:
        anonymous, peak = _import(name, tmp_path, num_clips)
        print(f"{name}: {anonymous:.0f} MB anonymous above the start, {peak:.0f} MB in all")
        assert peak < 2048
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
