"""Damaged copies of real clips: each is a result or one line; no traceback, no hang, no 2 GB.

    python benchmarks/mutated_clips.py [--copies 500] [--seed 0] [--long] [--fresh]

Run with ``make bench-mutated-clips``; a killed run continues where it was. Writes
``docs/results/mutated-clips.md``; exits with 1 where a copy does anything else.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
import threading
import time
import wave
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import ROOT, data_root, markdown_table, write_results

from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings
from tecafn.extract.folder import _extract_whole
from tecafn.extract.guard import MEMORY_BYTES, run_guarded

RATE = 25
_TRACEBACK = re.compile(r"Traceback|\w+Error:|0x[0-9a-f]{6}")

Mutation = Callable[[bytes, np.random.Generator], tuple[bytes, str]]


@dataclass(frozen=True)
class Result:
    """What became of a copy.

    Args:
        kind: of the mutation.
        source: the clip.
        outcome: ``read``, ``refused`` or what went wrong.
        said: the line, or the remarks.
        seconds: that it took.
        peak: the highest resident memory of the process that read it, bytes.
    """

    kind: str
    source: str
    outcome: str
    said: str
    seconds: float
    peak: int


def bit_flips(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """1 to 1,000 bits anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    number = int(10 ** draw.uniform(0, 3))
    places = draw.integers(0, len(changed), number)
    np.bitwise_xor.at(changed, places, (1 << draw.integers(0, 8, number)).astype(np.uint8))
    return changed.tobytes(), ""


def header_flips(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """1 to 30 bytes of the first and the last 4 kB: where containers keep their tables."""
    changed = np.frombuffer(data, np.uint8).copy()
    for _ in range(int(draw.integers(1, 31))):
        place = int(draw.integers(0, min(4096, len(changed))))
        changed[place if draw.random() < 0.5 else -1 - place] = draw.integers(0, 256)
    return changed.tobytes(), ""


def truncation(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """Cut anywhere."""
    return data[: int(draw.integers(1, len(data)))], ""


def lost_beginning(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """The beginning is gone."""
    return data[int(draw.integers(1, len(data) // 2)) :], ""


def hole(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """A stretch of zeros."""
    begin = int(draw.integers(0, len(data)))
    end = min(len(data), begin + int(draw.integers(1, len(data) // 3)))
    return data[:begin] + bytes(end - begin) + data[end:], ""


def swapped_container(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """Another container's name."""
    return data, str(draw.choice([".mkv", ".wav", ".mp3", ".avi", ".ts", ".flac", ".webm", ".mp4"]))


def spliced(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """Its own parts in another order."""
    cut = int(draw.integers(1, len(data)))
    return data[:cut] + data[: len(data) - cut], ""


MUTATIONS: dict[str, Mutation] = {
    "bit flips": bit_flips,
    "bytes of the container's tables": header_flips,
    "truncated": truncation,
    "beginning lost": lost_beginning,
    "a stretch of zeros": hole,
    "named as another container": swapped_container,
    "parts in another order": spliced,
}


def special_files(folder: Path, *, long: bool) -> Iterator[tuple[str, Path]]:
    """One file each of what no mutation makes; ``long``: ten hours are read, too."""
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    yield "zero length", empty
    text = folder / "text.mp4"
    text.write_text("This is no video.\n" * 500)
    yield "text named .mp4", text
    zeros = folder / "zeros.mp4"
    zeros.write_bytes(bytes(100_000))
    yield "zeros named .mp4", zeros
    playlist = folder / "playlist.mp4"
    playlist.write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    yield "a playlist that names other files", playlist
    silent = folder / "silent.wav"
    with wave.open(str(silent), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        for _ in range(600):
            out.writeframes(b"\x80" * 8000 * 60)
    yield "10 hours of silence", silent
    yield "decompression bomb: pictures of 16,000 x 16,000", _large_pictures(folder / "bomb.mov")
    yield "a day of black pictures", _long_black(folder / "black.mkv")
    if long:
        yield "10 hours of silence, --max-hours 11", silent


def _large_pictures(path: Path) -> Path:
    """Two PNG pictures of 16,000 x 16,000 black pixels, in a file that says 96 x 96."""
    import av

    side = 16_000
    squeezed = zlib.compressobj(9)
    rows = [squeezed.compress(bytes(1 + 3 * side)) for _ in range(side)]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", b"".join(rows) + squeezed.flush()),
        (b"IEND", b""),
    )
    picture = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=RATE)
        stream.width = stream.height = 96
        stream.pix_fmt = "rgb24"
        first = av.VideoFrame.from_ndarray(np.zeros((96, 96, 3), np.uint8), format="rgb24")
        for packet in stream.encode(first):
            out.mux(packet)
        for number in (1, 2):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, RATE), True
            out.mux(packet)
    return path


def _long_black(path: Path) -> Path:
    """A black picture per second for a day."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 640
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((640, 640, 3), np.uint8), format="rgb24")
        first = []
        for number in range(3):
            frame.pts = number
            first += [bytes(packet) for packet in stream.encode(frame)]
        first += [bytes(packet) for packet in stream.encode(None)]
        for number in range(24 * 3600):
            packet = av.Packet(first[min(number, 1)])  # then nothing changes
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1), number == 0
            out.mux(packet)
    return path


@dataclass(frozen=True)
class Copy:
    """A file to read.

    Args:
        kind: of the mutation.
        source: the clip that it is a copy of; ``made`` = none.
        path: the file.
    """

    kind: str
    source: str
    path: Path


def read_copies(copies: Iterable[Copy]) -> Iterator[Result]:
    """Read copies as `tecafn extract` does, one after the other in a guarded process."""
    begun: dict[Path, float] = {}
    known: dict[Path, Copy] = {}

    def jobs() -> Iterator[tuple[Path, ClipSettings, str, None]]:
        for copy in copies:
            known[copy.path] = copy
            begun[copy.path] = time.monotonic()
            hours = 11.0 if "--max-hours" in copy.kind else 3.0
            yield copy.path, ClipSettings(max_hours=hours), "", None

    with _Watch() as watch:
        for outcome in run_guarded(_extract_whole, jobs()):
            path = outcome.job[0]
            copy, taken = known[path], time.monotonic() - begun[path]
            said = outcome.error or "; ".join(outcome.value.remarks)
            said = said.replace(str(path), path.name)
            yield Result(
                copy.kind,
                copy.source,
                _judged(outcome.error, said, watch.peak),
                said,
                round(taken, 1),
                watch.peak,
            )
            watch.peak = 0
            if copy.source != "made":
                path.unlink()


def _judged(error: str | None, said: str, peak: int) -> str:
    if "\n" in said or _TRACEBACK.search(said):
        return "not one plain line"
    if "no progress" in said:
        return "a hang"
    if peak > MEMORY_BYTES:
        return "too much memory"
    return "read" if error is None else "refused"


class _Watch:
    """The highest resident memory of this process's children."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            for task in Path("/proc/self/task").iterdir():
                try:
                    children = (task / "children").read_text().split()
                    for child in children:
                        status = Path(f"/proc/{child}/status").read_text()
                        found = re.search(r"VmHWM:\s+(\d+)", status)
                        self.peak = max(self.peak, 1024 * int(found[1]) if found else 0)
                except OSError:
                    continue  # it has ended


def draw_copy(number: int, seed: int, folder: Path) -> Copy:
    """Mutated copy ``number``: every clip with every mutation in turn."""
    clips = sorted(path for path in (data_root() / "clips").iterdir() if path.is_file())
    draw = np.random.default_rng((seed, number))
    clip = clips[number % len(clips)]
    kind = list(MUTATIONS)[(number // len(clips)) % len(MUTATIONS)]
    data, suffix = MUTATIONS[kind](clip.read_bytes(), draw)
    path = folder / f"copy-{number}{suffix or clip.suffix}"
    path.write_bytes(data)
    return Copy(kind, clip.name, path)


def read_all(folder: Path, copies: int, seed: int, *, long: bool) -> list[Result]:
    """Mutated copies, drawn by seed and number, then the other files; what is done stays."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.jsonl"
    results = []
    if kept.exists():
        results = [Result(**json.loads(line)) for line in kept.read_text().splitlines()]
    made = {result.kind for result in results if result.source == "made"}
    first = sum(result.source != "made" for result in results)

    def left() -> Iterator[Copy]:
        for number in range(first, copies):
            yield draw_copy(number, seed, folder)
        for kind, path in special_files(folder, long=long):
            if kind not in made:
                yield Copy(kind, "made", path)

    for result in read_copies(left()):
        results.append(result)
        with kept.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        print(f"{len(results)}: {result.kind}: {result.outcome}: {result.said[:100]}", flush=True)
    return results


def write_page(results: list[Result]) -> None:
    """docs/results/mutated-clips.md."""
    rows = []
    for kind in dict.fromkeys(result.kind for result in results):
        of_kind = [result for result in results if result.kind == kind]
        counts = Counter(result.outcome for result in of_kind)
        rows.append(
            [
                kind,
                str(len(of_kind)),
                str(counts.pop("read", 0)),
                str(counts.pop("refused", 0)),
                ", ".join(f"{n} {what}" for what, n in counts.items()) or "0",
                f"{max(result.seconds for result in of_kind):.0f}",
                f"{max(result.peak for result in of_kind) / 1e6:.0f}",
            ]
        )
    copies = sum(result.source != "made" for result in results)
    lines = sorted({result.said for result in results if result.outcome == "refused"})
    shapes = Counter(re.sub(r"\d+(\.\d+)?", "N", line) for line in lines)
    parts = [
        f"{copies} mutated copies of the {len({r.source for r in results} - {'made'})} clips of "
        f"`clips/`, and {len(results) - copies} files that were made for this, each read as "
        "`tecafn extract CLIP` reads it. Right is a result, or a refusal in one line without the "
        "name of a Python exception; wrong is anything else, a process that stops making progress, "
        f"or more than {MEMORY_BYTES / 1e9:g} GB of resident memory.",
        markdown_table(
            ["", "files", "read", "refused in a line", "wrong", "longest, s", "highest MB"], rows
        ),
        "## What is said of those that are refused",
        "\n".join(f"- {line}" for line, _ in shapes.most_common(25)),
    ]
    write_results("mutated-clips", "Damaged clips", "make bench-mutated-clips", parts)


def main() -> None:
    """Read all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true", help="read ten hours of silence, too")
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    folder = ROOT / "runs" / "bench-mutated-clips"
    if arguments.fresh:
        (folder / "results.jsonl").unlink(missing_ok=True)
    results = read_all(folder, arguments.copies, arguments.seed, long=arguments.long)
    write_page(results)
    wrong = [result for result in results if result.outcome not in ("read", "refused")]
    for result in wrong:
        print(f"{result.kind} of {result.source}: {result.outcome}: {result.said}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
