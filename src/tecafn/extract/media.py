"""Reading video and sound files: pictures and samples on one clock, whatever the container does.

**The clock.** A time is what the file says (the presentation timestamp), in seconds since the
container's beginning; it is never an index divided by a rate. So variable frame rates, sound that
starts late, the encoder's delay of MP3 and AAC, edit lists and MPEG-TS's arbitrary origin all come
out right, and pictures and sound of one file share one clock.

**Memory** is bounded: pictures come one by one, and sound of more than a few minutes lies in a
temporary file that is read in pieces.

**Files are not trusted.** What is read is limited to the formats of video and sound (a playlist
that names other files is none of them), by size of picture and by length; what is damaged is left
out, counted, and said in ``remarks``. See ``guard`` for the limits on memory and time around this.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.reformatter import VideoReformatter

SAMPLING_RATE_HZ: Final = 16_000
MAX_HOURS: Final = 3.0
_TOLD_EVERY_SECONDS: Final = 60.0

# A picture of 8K; a larger one in a file of this kind is an attack rather than a film.
_MAX_PIXELS: Final = 7680 * 4320
_MAX_SIDE: Final = 16_384
# Containers of video and sound. Playlists (hls, dash, concat) are left out: they open other files.
_FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,ivf,asf,flv,mxf,ogg,wav,"
    "w64,flac,mp3,aac,ac3,eac3,amr,aiff,caf,au"
)
# Rates of sound outside of this are damage: no recorder has them, and no converter takes them.
_RATES_HZ: Final = (1_000, 768_000)
# Sound shorter than this is kept in memory: 10 minutes at 16 kHz are 38 MB.
_SECONDS_IN_MEMORY: Final = 600.0
# A gap or an overlap of sound below this is the container's rounding.
_GAP_SECONDS: Final = 0.02
# The end that a file declares and the last thing decoded may differ by this much.
_END_TOLERANCE_SECONDS: Final = 1.0
_NOMINAL_RATE: Final = 25.0


@dataclass(frozen=True, kw_only=True)
class Track:
    """One stream of a file.

    Args:
        kind: video or audio.
        index: the stream's number in the file.
        codec: FFmpeg's name.
        start: seconds on the clip's clock, as declared; None = undeclared.
        width, height: pixels as they are shown, after rotation; 0 for sound.
        sampling_rate_hz, num_channels: of sound, else 0.
        language: as the file says, else empty.
        is_default: the one that players choose.
    """

    kind: Literal["video", "audio"]
    index: int
    codec: str
    start: float | None
    width: int = 0
    height: int = 0
    sampling_rate_hz: int = 0
    num_channels: int = 0
    language: str = ""
    is_default: bool = False


@dataclass(frozen=True, kw_only=True)
class Media:
    """What a file holds, by its header and first picture.

    Args:
        path: the file.
        container: FFmpeg's name of its format.
        duration: seconds as declared; None where the file does not say.
        tracks: of video and of sound; a cover picture is no video.
        rotation: degrees by which pictures are turned anticlockwise to be upright: 0, 90, 180, 270.
        video, audio: the track that is read; None = there is none.
    """

    path: Path
    container: str
    duration: float | None
    tracks: tuple[Track, ...]
    rotation: int
    video: Track | None
    audio: Track | None

    @property
    def has_video(self) -> bool:
        """Is there a track of pictures?"""
        return self.video is not None

    @property
    def has_audio(self) -> bool:
        """Is there a track of sound?"""
        return self.audio is not None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of this file leaves aside."""
        said = []
        for kind, chosen in (("video", self.video), ("audio", self.audio)):
            number = sum(track.kind == kind for track in self.tracks)
            if chosen is not None and number > 1:
                tongue = f" ({chosen.language})" if chosen.language not in ("", "und") else ""
                said.append(f"{number} {kind} tracks; track {chosen.index}{tongue} is read")
        return tuple(said)


@dataclass(frozen=True)
class Frame:
    """A picture, upright.

    Args:
        time: seconds on the clip's clock.
        image: (H, W, 3) uint8, RGB.
    """

    time: float
    image: NDArray[np.uint8]


@dataclass(kw_only=True)
class Audio:
    """Sound of a clip, one channel.

    Args:
        rate: samples per second.
        start: seconds on the clip's clock of the first sample.
        native_rate: samples per second in the file.
        num_samples: how many.
        remarks: what was repaired or left out.

    Example:
        >>> audio = Audio.of(np.zeros(16_000, np.float32), start=0.5)
        >>> audio.duration, audio.end, len(audio.read(0.0, 1.0))
        (1.0, 1.5, 8000)
    """

    rate: int
    start: float
    native_rate: int
    num_samples: int = 0
    remarks: list[str] = field(default_factory=list)
    _chunks: list[NDArray[np.float32]] = field(default_factory=list, repr=False)
    _file: int | None = field(default=None, repr=False)  # a descriptor

    @classmethod
    def of(
        cls, samples: NDArray[np.float32], *, rate: int = SAMPLING_RATE_HZ, start: float = 0.0
    ) -> Self:
        """Sound that is there already: (N,) samples in -1 to 1."""
        audio = cls(rate=rate, start=start, native_rate=rate)
        audio._append(np.ascontiguousarray(samples, dtype=np.float32))
        return audio

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.rate

    @property
    def end(self) -> float:
        """Seconds on the clip's clock after the last sample."""
        return self.start + self.duration

    @property
    def samples(self) -> NDArray[np.float32]:
        """(N,) all of it, in -1 to 1; an hour takes 230 MB, so read long sound in ``pieces``."""
        return self.between(0, self.num_samples)

    def between(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples ``first`` up to, not including, ``last``; cut to what there is."""
        first, last = max(first, 0), min(last, self.num_samples)
        if last <= first:
            return np.zeros(0, np.float32)
        if self._file is not None:
            content = os.pread(self._file, 4 * (last - first), 4 * first)
            return np.frombuffer(content, dtype="<f4")
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0][first:last]

    def read(self, start: float, end: float) -> NDArray[np.float32]:
        """Samples between two seconds on the clip's clock; cut to what there is."""
        return self.between(
            round((start - self.start) * self.rate), round((end - self.start) * self.rate)
        )

    def pieces(self, seconds: float) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Consecutive pieces: (seconds on the clip's clock of its first sample, samples)."""
        step = max(1, round(seconds * self.rate))
        for first in range(0, self.num_samples, step):
            yield self.start + first / self.rate, self.between(first, first + step)

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.num_samples += len(samples)
        if self._file is None and self.num_samples > _SECONDS_IN_MEMORY * self.rate:
            self._file, name = tempfile.mkstemp(prefix="tecafn-sound-")
            os.unlink(name)  # it goes with the process, however that ends
            weakref.finalize(self, os.close, self._file)
            for chunk in self._chunks:
                _write(self._file, chunk)
            self._chunks.clear()
        if self._file is not None:
            _write(self._file, samples)
        else:
            self._chunks.append(samples)


def _write(descriptor: int, samples: NDArray[np.float32]) -> None:
    left = memoryview(samples.astype("<f4").tobytes())
    while left:
        left = left[os.write(descriptor, left) :]


def probe(path: Path | str) -> Media:
    """What a file holds; decodes one picture at most.

    Raises:
        UserError: it cannot be read, or holds neither video nor sound.
    """
    path = Path(path)
    with _open(path) as opened:
        media = opened.media()
        if media.video is None:
            return media
        first = next(opened.decode(media.video), None)
        return media if first is None else replace(media, rotation=90 * _quarter_turns(first))


def frames(path: Path | str, width: int | None = 640, *, max_hours: float = MAX_HOURS) -> Frames:
    """The pictures of a clip one by one, upright, at most ``width`` pixels wide.

    Args:
        path: the file.
        width: pixels; a wider picture is scaled down, keeping its shape. None = as it is.
        max_hours: a longer clip is refused.

    Raises:
        UserError: there is no video, it cannot be read, or a picture is too large.

    Example:
        >>> for frame in frames("clip.mp4"):             # doctest: +SKIP
        ...     print(frame.time, frame.image.shape)
    """
    return Frames(Path(path), width=width, max_hours=max_hours)


class Frames(Iterator[Frame]):
    """Iterator over the pictures of a clip.

    Attributes:
        media: what the file holds.
        num_frames: how many have been given so far.
        remarks: after the last one: what was damaged, cut short or repaired.
    """

    def __init__(self, path: Path, *, width: int | None, max_hours: float) -> None:
        self.num_frames = 0
        self.remarks: list[str] = []
        self.media = probe(path)
        if self.media.video is None:
            raise UserError(f"{path}: there is no video in it")
        _check_length(path, self.media.duration, max_hours)
        self._opened = _open(path)
        self._path = path
        self._width = width
        self._max_hours = max_hours
        stream = self._opened.stream(self.media.video)
        self._rate = _nominal_rate(stream)
        self._pixel_shape = _pixel_shape(stream)
        self._declared_end = _declared_end(self._opened, self.media.video)
        self._decoded = self._opened.decode(self.media.video)
        self._converter = _converter()
        self._last: float | None = None
        self._num_retimed = 0

    def __next__(self) -> Frame:
        import av

        while True:
            try:
                picture = next(self._decoded)
            except StopIteration:
                self._end()
                raise
            except BaseException:
                self.close()
                raise
            time = self._time_of(picture)
            _check_length(self._path, time, self._max_hours)
            try:
                image = _upright(
                    picture, self._width, self._pixel_shape, self._path, self._converter
                )
            except (av.error.FFmpegError, ValueError):
                # A format that damage made, and that FFmpeg does not convert.
                self._opened.num_damaged += 1
                continue
            break
        self._last = time
        self.num_frames += 1
        return Frame(time, image)

    def close(self) -> None:
        """Close the file; done by itself after the last picture."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _time_of(self, picture: VideoFrame) -> float:
        """By the file's clock; a time that cannot be is replaced by the nominal next one."""
        time = None if picture.time is None else picture.time - self._opened.origin
        duration = self.media.duration
        is_past_end = (
            time is not None
            and duration is not None
            and time > duration + _END_TOLERANCE_SECONDS
            and time > (self._last or 0.0) + _END_TOLERANCE_SECONDS
        )
        if time is None or is_past_end or (self._last is not None and time <= self._last):
            self._num_retimed += 1
            time = 0.0 if self._last is None else self._last + 1 / self._rate
        return time

    def _end(self) -> None:
        self.close()
        if self.num_frames == 0:
            raise UserError(f"{self._path}: no picture of its video can be decoded")
        self.remarks += self.media.remarks
        self.remarks += self._opened.damage("pictures")
        if self._num_retimed:
            self.remarks.append(
                f"{_count(self._num_retimed, 'picture')} without a time that can be; "
                f"put {1 / self._rate:.3f} s after the one before"
            )
        last = (self._last or 0.0) + 1 / self._rate
        declared = self._declared_end
        if declared is not None and declared - last > _END_TOLERANCE_SECONDS:
            self.remarks.append(
                f"the video ends at {last:.1f} s of the {declared:.1f} s that the file declares: "
                "it is truncated or damaged"
            )


def read_audio(
    path: Path | str,
    *,
    rate: int | None = SAMPLING_RATE_HZ,
    track: int | None = None,
    max_hours: float = MAX_HOURS,
    progress: Callable[[float], None] | None = None,
) -> Audio:
    """The sound of a clip, one channel, with its place on the clip's clock.

    Gaps between the sound's packets are filled with silence, so that sample n is spoken at
    ``start + n / rate`` throughout.

    Args:
        path: the file.
        rate: samples per second to convert to; None = the file's own.
        track: number of the stream in the file; None = the one players choose.
        max_hours: longer sound is refused.
        progress: told the seconds that are read, once in a while.

    Raises:
        UserError: there is no sound, it cannot be read, or it is longer than ``max_hours``.

    Example:
        >>> audio = read_audio("clip.mp4")              # doctest: +SKIP
        >>> audio.rate, audio.start, audio.samples.dtype  # doctest: +SKIP
        (16000, 0.0, dtype('float32'))
    """
    path = Path(path)
    with _open(path) as opened:
        media = opened.media()
        chosen = media.audio
        if track is not None:
            chosen = next((t for t in media.tracks if t.kind == "audio" and t.index == track), None)
            if chosen is None:
                known = ", ".join(str(t.index) for t in media.tracks if t.kind == "audio")
                raise UserError(f"{path}: there is no audio track {track}; there is: {known or 0}")
        if chosen is None:
            raise UserError(f"{path}: there is no sound in it")
        _check_length(path, media.duration, max_hours)
        audio = _Listener(path, opened, chosen, rate=rate, max_hours=max_hours).listen(progress)
        if track is None:
            audio.remarks[:0] = [r for r in media.remarks if "audio tracks" in r]
        return audio


class _Listener:
    """Turns the frames of a track into samples without gaps."""

    def __init__(
        self, path: Path, opened: _Opened, track: Track, *, rate: int | None, max_hours: float
    ) -> None:
        self._path = path
        self._opened = opened
        self._track = track
        self._rate = rate
        self._max_hours = max_hours
        self._native = 0  # rate of the frames
        self._num_native = 0  # samples since the first one, in the file's rate
        self._num_gaps = 0
        self._num_overlaps = 0
        self._to_mono: Any = None
        self._resample: Any = None
        self._mono_of: tuple[str, str, int] | None = None

    def listen(self, progress: Callable[[float], None] | None = None) -> Audio:
        audio: Audio | None = None
        told = 0.0
        for sound in self._opened.decode(self._track):
            if sound.samples <= 0:
                continue
            if not _RATES_HZ[0] <= sound.sample_rate <= _RATES_HZ[1]:
                self._opened.num_damaged += 1
                continue
            time = None if sound.time is None else sound.time - self._opened.origin
            if audio is None:
                self._native = sound.sample_rate
                audio = Audio(
                    rate=self._rate or self._native,
                    start=0.0 if time is None else time,
                    native_rate=self._native,
                )
                _check_length(self._path, audio.start, self._max_hours)
            for samples in self._in_place(audio, sound, time):
                self._num_native += len(samples)
                _check_length(
                    self._path, audio.start + self._num_native / self._native, self._max_hours
                )
                self._give(audio, samples)
            if progress is not None and audio.end >= told + _TOLD_EVERY_SECONDS:
                told = audio.end
                progress(told)
        if audio is None:
            raise UserError(f"{self._path}: nothing of its sound can be decoded")
        self._give(audio, None)
        self._remark(audio)
        return audio

    def _in_place(
        self, audio: Audio, sound: AudioFrame, time: float | None
    ) -> Iterator[NDArray[np.float32]]:
        """One channel at the first frame's rate, after silence where the clock has a gap."""
        import av

        try:
            samples = self._mono(sound)
        except (av.error.FFmpegError, ValueError):
            # A layout or format that damage made, and that FFmpeg does not convert.
            self._mono_of = None
            self._opened.num_damaged += 1
            return
        if time is not None:
            due = round((time - audio.start) * self._native)
            missing = due - self._num_native
            tolerance = _GAP_SECONDS * self._native
            if missing > tolerance:
                self._num_gaps += 1
                end = audio.start + due / self._native
                _check_length(self._path, end, self._max_hours)
                limit = self._track_end()
                if limit is not None and end > limit:
                    missing = 0  # a clock that jumps past the file's own end is damage
                for first in range(0, missing, self._native):
                    yield np.zeros(min(self._native, missing - first), np.float32)
            elif missing < -tolerance:
                self._num_overlaps += 1
                samples = samples[min(-missing, len(samples)) :]
        if len(samples):
            yield samples

    def _track_end(self) -> float | None:
        end = _declared_end(self._opened, self._track)
        return None if end is None else end + _END_TOLERANCE_SECONDS

    def _mono(self, sound: AudioFrame) -> NDArray[np.float32]:
        import av

        kind = (sound.format.name, sound.layout.name, sound.sample_rate)
        if kind != self._mono_of:
            # Within a file the format may change; each has a converter of its own.
            self._mono_of = kind
            # FFmpeg's own way to one channel adds two, and so turns the sound up.
            layout = "mono" if sound.layout.nb_channels == 1 else "stereo"
            self._to_mono = av.AudioResampler(format="fltp", layout=layout, rate=self._native)
        sound.pts = None
        parts = [part.to_ndarray().mean(axis=0) for part in self._to_mono.resample(sound)]
        mono = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)

    def _give(self, audio: Audio, samples: NDArray[np.float32] | None) -> None:
        """Convert to the wanted rate and keep; None = the end."""
        import av

        if audio.rate == self._native:
            if samples is not None:
                audio._append(samples)
            return
        if self._resample is None:
            self._resample = av.AudioResampler(format="fltp", layout="mono", rate=audio.rate)
        frame = None
        if samples is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = self._native
        try:
            parts = self._resample.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"{self._path}: its sound of {self._native} Hz cannot be converted: "
                f"{_reason(error)}"
            ) from None
        for part in parts:
            audio._append(part.to_ndarray()[0].copy())

    def _remark(self, audio: Audio) -> None:
        audio.remarks += self._opened.damage("pieces of sound")
        if self._num_gaps:
            audio.remarks.append(
                f"{_count(self._num_gaps, 'gap')} in the sound filled with silence"
            )
        if self._num_overlaps:
            audio.remarks.append(f"{_count(self._num_overlaps, 'overlap')} in the sound left out")
        end = _declared_end(self._opened, self._track)
        if end is not None and end - audio.end > _END_TOLERANCE_SECONDS:
            audio.remarks.append(
                f"the sound ends at {audio.end:.1f} s of the {end:.1f} s that the file declares: "
                "it is truncated or damaged"
            )


class _Opened:
    """An open file; every complaint of FFmpeg becomes a line that names the file."""

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path = path
        self.container = container
        start = container.start_time
        self.origin = 0.0 if start is None else start / 1_000_000
        self.num_damaged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def stream(self, track: Track) -> Any:
        return self.container.streams[track.index]

    def media(self) -> Media:
        """All but the rotation, which pictures alone tell."""
        container = self.container
        tracks = tuple(self._track(stream) for stream in container.streams if _is_media(stream))
        if not tracks:
            raise UserError(f"{self._path}: there is neither video nor sound in it")
        chosen: dict[str, Track | None] = {}
        for kind in ("video", "audio"):
            of_kind = [track for track in tracks if track.kind == kind]
            best = container.streams.best(kind)
            first = next((t for t in of_kind if best is not None and t.index == best.index), None)
            chosen[kind] = first or next(iter(of_kind), None)
        duration = container.duration
        return Media(
            path=self._path,
            container=container.format.name,
            duration=None if not duration or duration < 0 else duration / 1_000_000,
            tracks=tracks,
            rotation=0,
            video=chosen["video"],
            audio=chosen["audio"],
        )

    def _track(self, stream: Any) -> Track:
        import av

        context = stream.codec_context
        start = stream.start_time
        seconds = None
        if start is not None and stream.time_base is not None:
            seconds = float(start * stream.time_base) - self.origin
        common: dict[str, Any] = {
            "index": stream.index,
            "codec": "unknown" if context is None else context.name,
            "start": seconds,
            "language": stream.metadata.get("language", ""),
            "is_default": bool(stream.disposition & av.stream.Disposition.default),
        }
        if stream.type == "video":
            return Track(
                kind="video",
                width=0 if context is None else context.width,
                height=0 if context is None else context.height,
                **common,
            )
        return Track(
            kind="audio",
            sampling_rate_hz=0 if context is None else context.sample_rate,
            num_channels=0 if context is None else context.channels,
            **common,
        )

    def decode(self, track: Track) -> Iterator[Any]:
        """Frames of a track; a packet that cannot be decoded is counted and passed over."""
        import av

        stream = self.stream(track)
        if stream.codec_context is None:
            raise UserError(f"{self._path}: its {track.kind} has a codec that cannot be decoded")
        if track.kind == "video":
            stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        stream.thread_type = "NONE"
        packets = self.container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:
                # The file breaks off here: what has been read so far counts.
                self.num_damaged += 1
                return
            try:
                decoded = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError) as error:
                if not _is_end(error):
                    self.num_damaged += 1
                continue
            yield from decoded

    def damage(self, what: str) -> list[str]:
        """A sentence where something could not be decoded."""
        if not self.num_damaged:
            return []
        return [f"{self.num_damaged} damaged {what} left out"]


def _is_end(error: Exception) -> bool:
    import av

    return isinstance(error, av.error.EOFError)


def _open(path: Path) -> _Opened:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    return _Opened(path, _container(path))


def _container(path: Path) -> InputContainer:
    try:
        import av
    except ImportError:
        raise UserError(
            "reading video and sound needs PyAV; install it with: pip install 'tecafn[video]'"
        ) from None
    av.logging.set_level(av.logging.PANIC)
    try:
        # Never a bare name: FFmpeg would take "concat:a" or "http://..." for a protocol.
        return av.open(
            f"file:{path}",
            mode="r",
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as video or sound: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_media(stream: Stream) -> bool:
    """Video or sound; a cover picture is neither."""
    import av

    if stream.type not in ("video", "audio"):
        return False
    return not stream.disposition & av.stream.Disposition.attached_pic


def _declared_end(opened: _Opened, track: Track) -> float | None:
    """Seconds on the clip's clock at which a track ends by the file's own word."""
    stream = opened.stream(track)
    if not stream.duration or stream.time_base is None:
        duration = opened.container.duration
        return duration / 1_000_000 if duration and duration > 0 else None
    start = stream.start_time or 0
    return float((start + stream.duration) * stream.time_base) - opened.origin


def _nominal_rate(stream: Any) -> float:
    rate: Fraction | None = stream.average_rate or stream.base_rate
    if rate is None or not 1 <= rate <= 1000:
        return _NOMINAL_RATE
    return float(rate)


def _check_length(path: Path, seconds: float | None, max_hours: float) -> None:
    if seconds is not None and seconds > max_hours * 3600:
        raise UserError(
            f"{path}: it lasts {seconds / 3600:.1f} hours, more than the {max_hours:g} allowed; "
            "cut it, or allow it with --max-hours"
        )


def _quarter_turns(picture: VideoFrame) -> int:
    return round(picture.rotation / 90) % 4


def _converter() -> VideoReformatter:
    """Of pictures, kept: one of each picture's own would be set up anew every time."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _upright(
    picture: VideoFrame,
    width: int | None,
    pixel_shape: float,
    path: Path,
    converter: VideoReformatter,
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, scaled to square pixels and the width, then turned upright."""
    shown, height = picture.width, picture.height
    if shown * height > _MAX_PIXELS or max(shown, height) > _MAX_SIDE or min(shown, height) < 1:
        raise UserError(f"{path}: its pictures are {shown} by {height}; the most is 8K")
    turns = _quarter_turns(picture)
    across, down = shown * pixel_shape, float(height)
    if width is not None:
        on_screen = down if turns % 2 else across
        scale = min(1.0, width / on_screen)
        across, down = across * scale, down * scale
    size = max(1, round(across)), max(1, round(down))
    scaled = converter.reformat(
        picture, width=size[0], height=size[1], format="rgb24", interpolation="BILINEAR"
    )
    image = cast("NDArray[np.uint8]", scaled.to_ndarray())
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _pixel_shape(stream: Any) -> float:
    """Width of a pixel on a screen over its height: old formats have pixels that are not square."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(ratio) if ratio and Fraction(1, 4) <= ratio <= 4 else 1.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
