"""What `tecafn analyze` costs: seconds per second of video, and memory; writes a results page.

    python benchmarks/analyze.py            # or: make bench-analyze
    python benchmarks/analyze.py --seconds 60 --no-hour

The clip is 640 x 360 at 25 pictures per second, H.264: the portrait of demo_clip.py, whose mouth
moves, over a recording of speech (the public-domain address of jfk.flac, again and again). An hour
is the same packets, written once more with later times. All is included: starting, loading the
models, the page and the exports. Seconds of the processor are told beside the clock's, because a
busy machine stretches only the latter.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import data_root, markdown_table, write_results
from demo_clip import FRAMES_PER_SECOND, SIZE
from measuring import anonymous_bytes

from tecafn.extract import media

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from clips import RATE, make_clip  # noqa: E402
from people import scene  # noqa: E402

WORDS = (
    "And so my fellow Americans ask not what your country can do for you "
    "ask what you can do for your country."
)
SPEECH_SECONDS = 11.0
COMMAND = "make bench-analyze"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """What one analysis took.

    Args:
        name: of the case.
        video_seconds: length of the clip.
        wall_seconds: by the clock.
        cpu_seconds: of all its processes.
        peak_bytes: anonymous memory of all its processes at once, at most.
        levels: the same, at the end of each tenth of the time.
    """

    name: str
    video_seconds: float
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    levels: tuple[int, ...]


def speaking_clip(path: Path, seconds: float) -> Path:
    """The portrait over recorded speech."""
    speech = media.read_audio(data_root() / "clips" / "jfk.flac")
    once = speech.read(0.0, SPEECH_SECONDS)
    sound = np.tile(once, int(np.ceil(seconds / SPEECH_SECONDS)))[: round(seconds * RATE)]

    def picture(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        at = round(number / FRAMES_PER_SECOND * RATE)
        loud = float(np.abs(sound[at : at + RATE // FRAMES_PER_SECOND]).mean())
        place = round(192 + 14 * np.sin(number / 50))
        return scene(place, size=SIZE, openings=(min(8 * loud, 1.0),))

    times = [k / FRAMES_PER_SECOND for k in range(round(seconds * FRAMES_PER_SECOND))]
    return make_clip(path, times=times, picture=picture, sounds=[sound], video_codec="libx264")


def longer(clip: Path, path: Path, times: int) -> Path:
    """The clip so many times over: its packets, with later times."""
    import av

    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        length = Fraction(source.duration or 0, 1_000_000)
        for number in range(times):
            source.seek(0)
            for packet in source.demux():
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                later = round(number * length / packet.time_base)
                packet.dts, packet.pts = packet.dts + later, packet.pts + later
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


def transcript(clip: Path, seconds: float) -> Path:
    """Subtitles beside the clip."""
    cues = []
    for number in range(int(seconds // SPEECH_SECONDS)):
        start = number * SPEECH_SECONDS
        cues.append(
            f"{number + 1}\n{stamp_of(start + 0.3)} --> {stamp_of(start + 10.5)}\n{WORDS}\n"
        )
    path = clip.with_suffix(".srt")
    path.write_text("\n".join(cues), encoding="utf-8")
    return path


def stamp_of(seconds: float) -> str:
    """As subtitles write a time."""
    milli = round(seconds * 1000)
    return (
        f"{milli // 3_600_000:02d}:{milli // 60_000 % 60:02d}:"
        f"{milli // 1000 % 60:02d},{milli % 1000:03d}"
    )


def measure(name: str, clip: Path, seconds: float, model: str, *, given: bool) -> Cost:
    """Analyse a clip in processes of its own."""
    beside = clip.with_suffix(".srt")
    if given:
        transcript(clip, seconds)
    else:
        beside.unlink(missing_ok=True)
    out = clip.with_name(f"{clip.stem}.analysis")
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    command = [sys.executable, "-m", "tecafn", "analyze", str(clip), "--model", model]
    process = subprocess.Popen([*command, "--out", str(out), "--quiet"])
    seen: list[tuple[float, int]] = []
    while process.poll() is None:
        seen.append((time.monotonic() - begun, anonymous_bytes(process.pid)))
        time.sleep(_POLL_SECONDS)
    wall = time.monotonic() - begun
    if process.returncode:
        raise SystemExit(f"{name}: the analysis failed with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    marks = [wall * tenth / 10 for tenth in range(1, 11)]
    levels = tuple(next((b for t, b in reversed(seen) if t <= mark), 0) for mark in marks)
    return Cost(name, seconds, wall, cpu, max(b for _, b in seen), levels)


def page(costs: list[Cost]) -> list[str]:
    """The tables of the results page."""
    rows = [
        [
            cost.name,
            f"{cost.video_seconds:.0f}",
            f"{cost.wall_seconds / cost.video_seconds:.3f}",
            f"{cost.cpu_seconds / cost.video_seconds:.3f}",
            f"{cost.peak_bytes / 1e6:.0f}",
        ]
        for cost in costs
    ]
    columns = [
        "case",
        "seconds of video",
        "clock, s per s",
        "processor, s per s",
        "peak memory, MB",
    ]
    return [
        "640 x 360 at 25 pictures per second, one face, H.264; starting, models, page and exports "
        "included. Memory is the anonymous memory of all processes together.",
        markdown_table(columns, rows),
    ]


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--models", default="builtin")
    parser.add_argument("--no-hour", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-analyze"))
    parser.add_argument("--write", action="store_true", help="write docs/results/analyze.md")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clip = options.out / f"clip-{options.seconds:g}.mp4"
    if not clip.exists():
        speaking_clip(clip, options.seconds)
    costs = []
    for model in options.models.split(","):
        for given in (True, False):
            words = "transcript" if given else "recognition"
            name = f"{model}, {words}"
            costs.append(measure(name, clip, options.seconds, model, given=given))
            print(json.dumps(asdict(costs[-1])), flush=True)
    if not options.no_hour:
        times = round(3600 / options.seconds)
        hour = longer(clip, options.out / "hour.mp4", times)
        name = f"{options.models.split(',')[0]}, recognition, an hour"
        costs.append(
            measure(name, hour, times * options.seconds, options.models.split(",")[0], given=False)
        )
        print(json.dumps(asdict(costs[-1])), flush=True)
    if options.write:
        print(write_results("analyze", "What an analysis costs", COMMAND, page(costs)))


if __name__ == "__main__":
    main()
