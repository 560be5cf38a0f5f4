"""What reading a clip costs: seconds per second, where they go, and memory by its length.

    python benchmarks/extract.py [--minutes 1,10,60] [--repeats 3] [--fresh]

Run with ``make bench-extract``; a killed run continues where it was, ``--fresh`` measures anew.
Writes ``docs/results/extract.md``. The clip is a talking face of CMU-MOSI, repeated, 25 pictures
per second of 640 by 360.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, data_root, markdown_table, write_results

from tecafn.core.errors import UserError
from tecafn.extract import media
from tecafn.extract.beside import in_turn
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.face.tracks import Follower

SOURCE = "Oz06ZWiO20M_6.mp4"
WIDTH, HEIGHT, RATE, SOUND_RATE = 640, 360, 25, 44_100
MINUTE = 60
# Goals: seconds per second of video, pictures per second, resident bytes, and their growth.
MOST = {"given": 0.15, "recognised": 0.20}
LEAST_PICTURES_PER_SECOND = 150.0
MOST_BYTES, MOST_GROWTH = 900_000_000, 0.05
REPEATS = 3
MINUTES = "1,10,60"
_SCRIPT = "python benchmarks/extract.py"
LOOP_SECONDS = 10

# What is timed: where the function is, and what it is called in the table.
PARTS = (
    ("tecafn.extract.media", "Frames.__next__", "decode pictures, scale, to RGB"),
    ("tecafn.extract.face.tracks", "Detector.__call__", "find faces"),
    ("tecafn.extract.face.tracks", "MeshFinder.__call__", "468 landmarks"),
    ("tecafn.extract.face.tracks", "MeshFinder._eye", "both irises"),
    ("tecafn.extract.face.tracks", "Follower._keep", "pose and measures of the face"),
    ("tecafn.extract.face.tracks", "Follower.see", "following faces, the rest"),
    ("tecafn.extract.media", "read_audio", "decode sound, to 16 kHz"),
    ("tecafn.extract.clip", "choose", "whose face"),
    ("tecafn.extract.words.recognition", "find_speech", "find speech"),
    ("tecafn.extract.words.recognition", "_transcribed", "recognise words"),
    ("tecafn.extract.words.alignment", "_aligned", "place words by forced alignment"),
    ("tecafn.extract.clip", "read_words", "words, the rest"),
    ("tecafn.extract.voice.track", "AudioTrack.__call__", "Whisper's states"),
)
REST = "start, models, the rest"


@dataclass
class Stopwatch:
    """CPU seconds of this process by part, those of inner parts left out of outer ones."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[float] = field(default_factory=list)

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._open.append(0.0)
            begun = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                taken = time.process_time() - begun
                inner = self._open.pop()
                self.seconds[name] = self.seconds.get(name, 0.0) + taken - inner
                if self._open:
                    self._open[-1] += taken

        return timed

    def install(self) -> None:
        """Time the functions of ``PARTS``."""
        for module, path, name in PARTS:
            owner: Any = importlib.import_module(module)
            *outer, last = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, last, self.wrap(getattr(owner, last), name))


def make_clip(path: Path, seconds: int) -> Path:
    """The source's pictures, letter-boxed, and its sound, again and again."""
    import av

    source = data_root() / "clips" / SOURCE
    shown = [_boxed(frame.image) for frame in _at_rate(source)]
    sound = media.read_audio(source, rate=SOUND_RATE)
    heard = sound.samples
    heard = np.pad(heard, (round(sound.start * SOUND_RATE), 0))
    heard = np.resize(heard[: len(shown) * SOUND_RATE // RATE], seconds * SOUND_RATE)
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt, video.bit_rate = WIDTH, HEIGHT, "yuv420p", 800_000
        audio: Any = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
        packets: list[tuple[float, Any]] = []
        for number in range(seconds * RATE):
            picture = av.VideoFrame.from_ndarray(shown[number % len(shown)], format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            packets += [(float(p.dts * p.time_base), p) for p in video.encode(picture)]
        packets += [(float(p.dts * p.time_base), p) for p in video.encode(None)]
        size = audio.codec_context.frame_size or 1024
        for at in range(0, len(heard), size):
            block = np.ascontiguousarray(heard[None, at : at + size])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, at, Fraction(1, SOUND_RATE)
            packets += [(float(p.dts * p.time_base), p) for p in audio.encode(frame)]
        packets += [(float(p.dts * p.time_base), p) for p in audio.encode(None)]
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            out.mux(packet)
    return path


def _at_rate(source: Path) -> Iterator[media.Frame]:
    """A picture per twenty-fifth of a second: the last one shown by then."""
    number, last = 0, None
    for frame in media.frames(source, WIDTH):
        while last is not None and frame.time > number / RATE + 1e-6:
            yield last
            number += 1
        last = frame


def _boxed(image: np.ndarray) -> np.ndarray:
    shown = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image = image[:HEIGHT, :WIDTH]
    top, left = (HEIGHT - image.shape[0]) // 2, (WIDTH - image.shape[1]) // 2
    shown[top : top + image.shape[0], left : left + image.shape[1]] = image
    return shown


def repeat_clip(source: Path, path: Path, times: int) -> Path:
    """The clip ``times`` times in a row, its packets copied."""
    import av

    with av.open(str(source)) as given:
        packets: list[Any] = [packet for packet in given.demux() if packet.dts is not None]
        streams: Any = given.streams
        with av.open(str(path), "w") as out:
            ours = {s.index: out.add_stream_from_template(s) for s in streams}
            written = {p: (p.pts, p.dts, p.stream.index) for p in packets}
            for number in range(times):
                for packet, (pts, dts, index) in written.items():
                    if number and dts < 0:
                        continue  # the encoder's delay comes once
                    later = round(number * MINUTE / streams[index].time_base)
                    packet.pts, packet.dts = pts + later, dts + later
                    packet.stream = ours[index]
                    packet.time_base = streams[index].time_base
                    out.mux(packet)
    return path


def reference_seconds() -> float:
    """CPU seconds of a fixed piece of work on one thread: 40 products of 1,024 x 1,024 matrices."""
    table = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    taken = []
    for _ in range(3):
        begun = time.process_time()
        for _ in range(40):
            table @ table
        taken.append(time.process_time() - begun)
    return min(taken)


def measure_clip(
    clip: Path, transcript: Path | None, words: Path | None, *, is_in_turn: bool
) -> dict[str, Any]:
    """Read the clip in this process; CPU seconds are from the interpreter's start on.

    What each part takes is known only where nothing runs beside it.
    """
    watch = Stopwatch()
    if is_in_turn:
        watch.install()
    marks: list[tuple[float, int]] = []
    page = os.sysconf("SC_PAGE_SIZE")

    def tell(seconds: float) -> None:
        if not marks or abs(seconds - marks[-1][0]) >= MINUTE / 2:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            marks.append((seconds, resident))

    with in_turn() if is_in_turn else nullcontext():
        features = extract_clip(clip, ClipSettings(), transcript=transcript, tell=tell)
    features.save(clip.with_suffix(".features.zip"))
    total = time.process_time()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if words is not None:
        (one,) = features.segments
        about = [{"word": w.text, "start": w.start, "end": w.end} for w in one.words]
        words.write_text(json.dumps(about))
    return {
        "seconds": features.duration,
        "cpu": total,
        "parts": watch.seconds,
        "peak": peak,
        "marks": marks,
        "pictures": features.num_pictures,
        "with_face": sum(one["pictures"] for one in features.faces),
        "words": sum(len(one.words) for one in features.segments),
        "reference": reference_seconds(),
    }


def measure_face_loop(clip: Path) -> dict[str, Any]:
    """Pictures per CPU second of detection, landmarks, irises and measures, without decoding."""
    pictures = []
    for frame in media.frames(clip):
        if frame.time >= LOOP_SECONDS:
            break
        pictures.append(frame)
    rates = []
    for _ in range(REPEATS):
        follower = Follower()
        follower.see(pictures[0])
        begun = time.process_time()
        for picture in pictures[1:]:
            follower.see(picture)
        rates.append((len(pictures) - 1) / (time.process_time() - begun))
    return {"rates": rates, "reference": reference_seconds()}


def measure_command(clip: Path, transcript: Path | None) -> dict[str, float]:
    """What ``tecafn extract`` takes from its start to its end, with all of its processes."""
    out = clip.with_suffix(".store")
    for folder in (out, out.with_name(f"{out.name}.clips")):
        shutil.rmtree(folder, ignore_errors=True)
    more = () if transcript is None else ("--transcript", str(transcript))
    command = [sys.executable, "-m", "tecafn", "extract", str(clip), "--out", str(out), *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    clock = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": MINUTE, "clock": clock, "cpu": cpu}


def in_own_process(*arguments: str) -> dict[str, Any]:
    """What a part of this benchmark prints, measured in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **threads}, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Kept:
    """Measurements in a JSON file, so that a killed run goes on."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._path = path
        self._all: dict[str, Any] = {}
        if path.exists() and not fresh:
            self._all = json.loads(path.read_text())

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under a name, measured now if it was not."""
        if name not in self._all:
            print(f"measuring {name}", flush=True)
            self._all[name] = measure()
            self._path.write_text(json.dumps(self._all, indent=1) + "\n")
        return self._all[name]


def measure_all(
    folder: Path, minutes: Sequence[int], *, repeats: int, fresh: bool
) -> dict[str, Any]:
    """Everything that the page shows."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder / "measured.json", fresh=fresh)
    minute = folder / "minute.mp4"
    if not minute.exists():
        make_clip(minute.with_suffix(".part.mp4"), MINUTE).rename(minute)
    words = folder / "minute.words.json"
    if not words.exists():
        in_own_process("--part", str(minute), "--write-words", str(words))
    given = ("--transcript", str(words))
    found: dict[str, Any] = {
        "given": [
            kept.get(f"given {k}", lambda: measure_command(minute, words)) for k in range(repeats)
        ],
        "recognised": [
            kept.get(f"recognised {k}", lambda: measure_command(minute, None))
            for k in range(repeats)
        ],
        "in turn": [
            kept.get(
                f"{name}, in turn",
                functools.partial(in_own_process, "--part", str(minute), "--in-turn", *more),
            )
            for name, more in (("given", given), ("recognised", ()))
        ],
        "loop": kept.get("face loop", lambda: in_own_process("--face-loop", str(minute))),
        "lengths": {},
    }
    for number in minutes:
        long = minute if number == 1 else folder / f"minutes-{number}.mp4"
        if not long.exists():
            repeat_clip(minute, long.with_suffix(".part.mp4"), number).rename(long)
        found["lengths"][number] = kept.get(
            f"{number} minutes", functools.partial(in_own_process, "--part", str(long))
        )
    return found


def _instructions() -> str:
    """What the processor's networks run with."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return "unknown"
    known = {"avx512f": "AVX-512", "avx2": "AVX2"}
    return next((name for flag, name in known.items() if flag in flags), "no AVX2")


def _best(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min(runs, key=lambda run: run["cpu"] / run["seconds"])


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "not met"


def _goals(found: dict[str, Any]) -> str:
    rows = []
    for name, what in (("given", "a transcript is given"), ("recognised", "words are recognised")):
        for kind, which in (("clock", "seconds by the clock"), ("cpu", "CPU seconds")):
            cost = [run[kind] / run["seconds"] for run in found[name]]
            ratio = _best(found[name])["cpu"] / found["loop"]["reference"]
            is_goal = kind == "clock"
            rows.append(
                [
                    f"{which} per second of video, {what}",
                    f"at most {MOST[name]:.2f}" if is_goal else "",
                    f"{min(cost):.3f} (to {max(cost):.3f})",
                    "" if is_goal else f"{ratio:.1f}",
                    _verdict(min(cost) <= MOST[name]) if is_goal else "",
                ]
            )
    rates = found["loop"]["rates"]
    rows.append(
        [
            "face loop with irises, pictures per CPU second",
            f"at least {LEAST_PICTURES_PER_SECOND:g}",
            f"{max(rates):.0f} (from {min(rates):.0f})",
            f"{max(rates) * found['loop']['reference']:.0f}",
            _verdict(max(rates) >= LEAST_PICTURES_PER_SECOND),
        ]
    )
    peaks = [run["peak"] for run in found["lengths"].values()]
    rows.append(
        [
            "resident memory, highest",
            f"at most {MOST_BYTES / 1e9:.1f} GB",
            f"{max(peaks) / 1e9:.2f} GB",
            "",
            _verdict(max(peaks) <= MOST_BYTES),
        ]
    )
    growth = max(peaks) / peaks[0] - 1
    rows.append(
        [
            f"its growth from {min(found['lengths'])} to {max(found['lengths'])} minutes",
            f"at most {100 * MOST_GROWTH:.0f} %",
            f"{100 * growth:.1f} %",
            "",
            _verdict(growth <= MOST_GROWTH),
        ]
    )
    return markdown_table(["", "goal", "measured", "in units of the fixed work", ""], rows)


def _where(found: dict[str, Any]) -> str:
    given, heard = found["in turn"]
    rows = []
    for name in [name for _, _, name in PARTS] + [REST]:
        cells = [name]
        for run in (given, heard):
            parts = run["parts"]
            taken = parts.get(name, 0.0) if name != REST else run["cpu"] - sum(parts.values())
            cells.append(f"{taken / run['seconds']:.4f}")
        rows.append(cells)
    total = ["all", *(f"{run['cpu'] / run['seconds']:.4f}" for run in (given, heard))]
    return markdown_table(["part", "transcript given", "words recognised"], [*rows, total])


def _memory(found: dict[str, Any]) -> str:
    rows = []
    for number, run in found["lengths"].items():
        marks = [resident for _, resident in run["marks"]]
        rows.append(
            [
                str(number),
                f"{run['cpu'] / run['seconds']:.3f}",
                f"{np.median(marks) / 1e6:.0f}",
                f"{run['peak'] / 1e6:.0f}",
                f"{run['with_face']:,} of {run['pictures']:,}",
                f"{run['words']:,}",
            ]
        )
    return markdown_table(
        [
            "minutes",
            "CPU s per s",
            "resident MB, median of every 30 s",
            "highest",
            "pictures with a face",
            "words",
        ],
        rows,
    )


def write_page(found: dict[str, Any]) -> None:
    """docs/results/extract.md."""
    reference = found["loop"]["reference"]
    parts = [
        f"`tecafn extract` reads a talking face ({RATE} pictures per second of {WIDTH} x {HEIGHT}, "
        "H.264, AAC) on two cores, all included: both its processes, imports, models, decoding, "
        "faces with irises, the speaker, words, Whisper's states, and the file of features. "
        "Decoding, irises and sound have a thread each beside the landmarks. Of "
        f"{len(found['given'])} runs the fastest counts. Time by the clock is longer where other "
        "work shares the cores, CPU time hardly; the fixed work, 40 products of two 1,024 x 1,024 "
        f"float32 matrices on one thread, took {reference:.2f} CPU seconds beside them. "
        f"Instructions: {_instructions()}.",
        _goals(found),
        "## Where the time goes",
        "CPU seconds per second of video, one minute, with one part after the other. The given "
        "transcript has a time for each word; times are checked against the sound and placed in it "
        "all the same.",
        _where(found),
        "## Memory by length",
        "The same minute, repeated; words are recognised. The median is of what is resident at "
        "every half minute of each pass; the highest is the system's own figure.",
        _memory(found),
    ]
    minutes = ",".join(map(str, found["lengths"]))
    command = "make bench-extract" if minutes == MINUTES else f"{_SCRIPT} --minutes {minutes}"
    write_results("extract", "Reading video: time and memory", command, parts)


def main() -> None:
    """Measure a part, or all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", default=MINUTES)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--part", type=Path)
    parser.add_argument("--transcript", type=Path)
    parser.add_argument("--in-turn", action="store_true")
    parser.add_argument("--write-words", type=Path)
    parser.add_argument("--face-loop", type=Path)
    arguments = parser.parse_args()
    if arguments.part is not None:
        paths = arguments.part, arguments.transcript, arguments.write_words
        print(json.dumps(measure_clip(*paths, is_in_turn=arguments.in_turn)))
    elif arguments.face_loop is not None:
        print(json.dumps(measure_face_loop(arguments.face_loop)))
    else:
        minutes = [int(number) for number in arguments.minutes.split(",")]
        folder = ROOT / "runs" / "bench-extract"
        repeats, fresh = arguments.repeats, arguments.fresh
        write_page(measure_all(folder, minutes, repeats=repeats, fresh=fresh))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
