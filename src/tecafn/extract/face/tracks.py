"""Every face of a clip followed through its pictures.

A face is detected once and then followed by its landmarks: its next region is where they are. The
detector runs again when a face is lost, and every half second for those who join. A face that
leaves is a gap in its track; where it comes back near the place it left, it is the same track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from tecafn.extract import media
from tecafn.extract.beside import ahead
from tecafn.extract.face.crop import Square
from tecafn.extract.face.detector import Detector, overlap
from tecafn.extract.face.measures import (
    COLUMNS,
    confidence,
    fill_eyes,
    mark_blinks,
    measure,
)
from tecafn.extract.face.mesh import Mesh, MeshFinder
from tecafn.extract.face.pose import fit_pose

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FACES: Final = 6
_LOWEST_SCORE: Final = 0.5
_NEWCOMERS_SECONDS: Final = 0.5
# Lids and gaze are looked at so often at most; a closure of a blink lasts a tenth of a second.
_EYES_PER_SECOND: Final = 15.0
# Faces are measured so many pictures at a time: one by one it takes as long as finding them.
_MEASURED_AT_ONCE: Final = 256
# A face that returns is the same one within this many of its widths, and this ratio of sizes.
_RETURN_DISTANCE: Final = 1.0
_RETURN_RATIO: Final = 1.6
_SAME_FACE: Final = 0.5


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip.

    Args:
        id: 1, 2, ... in the order in which faces appear, from the left among those of one picture.
        times: (n,) seconds of every decoded picture on the clip's clock.
        values: (n, 27) float32, the columns of ``measures.COLUMNS``; 0 where ``mask`` is False.
        confidence: (n,) float32, 0 to 1; 0 where the face is not seen.
        mask: (n,) bool, True where the face is seen.
        boxes: (n, 4) float32: left, top, right, bottom as shares of the picture's width and height,
            of the upright picture.
    """

    id: int
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    confidence: NDArray[np.float32]
    mask: NDArray[np.bool_]
    boxes: NDArray[np.float32]

    columns: tuple[str, ...] = COLUMNS

    @property
    def num_seen(self) -> int:
        """Pictures that show it."""
        return int(self.mask.sum())

    @property
    def middle(self) -> float:
        """Where it is from left (0) to right (1), in the median."""
        if not self.mask.any():
            return 0.5
        return float(np.median(self.boxes[self.mask][:, [0, 2]].mean(axis=1)))


@dataclass(frozen=True)
class Faces:
    """All faces of a clip.

    Args:
        times: (n,) seconds of every decoded picture.
        tracks: in the order of their ids.
        remarks: what the user should know.
        media: what the file holds.
    """

    times: NDArray[np.float64]
    tracks: tuple[FaceTrack, ...]
    remarks: tuple[str, ...]
    media: media.Media

    @property
    def num_frames(self) -> int:
        """Decoded pictures, with a face or without."""
        return len(self.times)


def extract(
    path: Path | str,
    *,
    width: int = 640,
    max_faces: int = MAX_FACES,
    max_hours: float = media.MAX_HOURS,
    progress: Callable[[float], None] | None = None,
) -> Faces:
    """Follow the faces of a clip.

    Args:
        path: the clip.
        width: pixels that pictures are scaled down to.
        max_faces: how many are followed at a time, the most certain first.
        max_hours: a longer clip is refused.
        progress: told the seconds of every picture.

    Raises:
        UserError: there is no video, it cannot be read, or the models are not installed.

    Example:
        >>> faces = extract("clip.mp4")                      # doctest: +SKIP
        >>> [(track.id, track.num_seen) for track in faces.tracks]  # doctest: +SKIP
        [(1, 225)]
    """
    with Follower(max_faces=max_faces) as follower:
        with (
            media.frames(path, width=width, max_hours=max_hours) as pictures,
            closing(ahead(pictures)) as coming,
        ):
            for picture in coming:
                follower.see(picture)
                if progress is not None:
                    progress(picture.time)
        tracks = follower.tracks()
    remarks, held = list(pictures.remarks), pictures.media
    if not tracks:
        remarks.append("no face is seen")
    elif follower.turns:
        remarks.append(
            f"the pictures are turned by {90 * follower.turns} degrees clockwise, because the face "
            "is then upright: the file lacks the rotation that its camera knew"
        )
    return Faces(follower.times, tracks, tuple(remarks), held)


@dataclass
class _Followed:
    """A face so far: the numbers of its pictures, and what was measured in each."""

    id: int
    region: Square
    is_seen: bool = True
    eyes_time: float = -1e9
    numbers: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)  # blocks (n, 27 + 5)
    waiting: list[Mesh] = field(default_factory=list)

    def needs_eyes(self, now: float) -> bool:
        """Is it time to look at its eyes again?"""
        return now - self.eyes_time > 1 / _EYES_PER_SECOND - 0.002

    def measure(self, size: tuple[int, int]) -> None:
        """Turn what waits into rows."""
        if not self.waiting:
            return
        pose = fit_pose(np.stack([mesh.landmarks for mesh in self.waiting]))
        boxes = np.array([mesh.box for mesh in self.waiting]) / (*size, *size)
        sure = confidence(self.waiting, pose, size)[:, None]
        rows = np.concatenate([measure(self.waiting, pose), sure, boxes], axis=1)
        self.rows.append(rows.astype(np.float32))
        self.waiting.clear()


class Follower:
    """Takes pictures one by one and keeps a row per face and picture.

    Attributes:
        turns: quarter turns clockwise by which pictures are turned before they are looked at.
    """

    def __init__(
        self,
        *,
        max_faces: int = MAX_FACES,
        detector: Detector | None = None,
        finder: MeshFinder | None = None,
    ) -> None:
        self._max_faces = max_faces
        self._detector = detector or Detector()
        self._finder = finder or MeshFinder()
        self._all: list[_Followed] = []
        self._times: list[float] = []
        self._last_search = self._last_turned = -1e9
        self._size = (1, 1)
        self.turns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finder.close()

    @property
    def times(self) -> NDArray[np.float64]:
        """(n,) seconds of the pictures so far."""
        return np.array(self._times, np.float64)

    def see(self, picture: media.Frame) -> list[tuple[int, Mesh]]:
        """Take the next picture; gives each face that is seen, with its track's id."""
        from PIL import Image

        image = Image.fromarray(picture.image)
        if not self._all:
            self._orient(image, picture.time)
        image = _turned(image, self.turns)
        number = len(self._times)
        self._times.append(picture.time)
        seen: list[tuple[_Followed, Mesh]] = []
        was_lost = False
        for face in self._active():
            mesh = self._finder(
                image,
                face.region,
                lowest_score=_LOWEST_SCORE,
                with_eyes=face.needs_eyes(picture.time),
            )
            if mesh is None or _is_among(mesh, [other for _, other in seen]):
                face.is_seen = False
                was_lost = True
            else:
                seen.append((face, mesh))
        is_due = picture.time - self._last_search >= _NEWCOMERS_SECONDS
        if not seen or was_lost or is_due:
            self._last_search = picture.time
            seen += self._search(image, seen)
        if image.size != self._size:  # boxes and confidence are of a picture's size
            self._measure()
            self._size = image.size
        for face, mesh in seen:
            self._keep(face, mesh, number)
        return [(face.id, mesh) for face, mesh in seen]

    def tracks(self) -> tuple[FaceTrack, ...]:
        """What was seen, a row per picture in every track."""
        self._measure()
        times = self.times
        return tuple(_finished(face, times) for face in self._all)

    def _active(self) -> list[_Followed]:
        return [face for face in self._all if face.is_seen]

    def _search(
        self, image: Image, seen: Sequence[tuple[_Followed, Mesh]]
    ) -> list[tuple[_Followed, Mesh]]:
        """Faces that are not followed yet, from left to right."""
        known = [mesh for _, mesh in seen]
        found: list[Mesh] = []
        for detection in self._detector(image):
            if len(known) + len(found) >= self._max_faces:
                break
            box = np.array(detection.box)
            if any(_covers(box, mesh) for mesh in (*known, *found)):
                continue
            mesh = self._finder(image, detection.region, lowest_score=_LOWEST_SCORE)
            if mesh is not None and not _is_among(mesh, [*known, *found]):
                found.append(mesh)
        found.sort(key=lambda mesh: mesh.box[0] + mesh.box[2])
        return [(self._track_of(mesh), mesh) for mesh in found]

    def _orient(self, image: Image, now: float) -> None:
        """Find out, until a face has been seen, whether the picture lies or stands on its head.

        The detector finds faces that stand on their head, too, but less surely, and the mesh then
        fits them upside down; so the way of turning that it is most certain of is taken.
        """
        if not self._detector(image) and now - self._last_turned < _NEWCOMERS_SECONDS:
            return
        self._last_turned = now
        scores = [
            max((face.score for face in self._detector(_turned(image, turns))), default=0.0)
            for turns in range(4)
        ]
        self.turns = max(range(4), key=lambda turns: scores[turns])

    def _track_of(self, mesh: Mesh) -> _Followed:
        """The track that was lost near here, or else a new one."""
        region = mesh.next_region
        best: _Followed | None = None
        nearest = _RETURN_DISTANCE
        for face in self._all:
            if face.is_seen:
                continue
            ratio = region.size / face.region.size
            away = np.hypot(region.x - face.region.x, region.y - face.region.y) / face.region.size
            if away < nearest and 1 / _RETURN_RATIO < ratio < _RETURN_RATIO:
                best, nearest = face, float(away)
        if best is None:
            best = _Followed(len(self._all) + 1, region)
            self._all.append(best)
        best.is_seen = True
        return best

    def _keep(self, face: _Followed, mesh: Mesh, number: int) -> None:
        face.region = mesh.next_region
        if mesh.looked is not None:
            face.eyes_time = self._times[number]
        face.numbers.append(number)
        face.waiting.append(mesh)
        if len(face.waiting) >= _MEASURED_AT_ONCE:
            face.measure(self._size)

    def _measure(self) -> None:
        for face in self._all:
            face.measure(self._size)


def _turned(image: Image, turns: int) -> Image:
    """By quarter turns clockwise."""
    from PIL.Image import Transpose

    ways = {1: Transpose.ROTATE_270, 2: Transpose.ROTATE_180, 3: Transpose.ROTATE_90}
    return image.transpose(ways[turns]) if turns else image


def _box(mesh: Mesh) -> NDArray[np.float64]:
    return np.array(mesh.box)


def _covers(box: NDArray[np.float64], mesh: Mesh) -> bool:
    """Is the detection the face of this mesh? Their boxes differ: one takes in the forehead."""
    left, top, right, bottom = mesh.box
    x, y = (box[:2] + box[2:]) / 2
    return bool(
        (left < x < right and top < y < bottom) or overlap(box, _box(mesh)[None])[0] > _SAME_FACE
    )


def _is_among(mesh: Mesh, others: Iterable[Mesh]) -> bool:
    """Has another track come to rest on the same face?"""
    return any(overlap(_box(mesh), _box(other)[None])[0] > _SAME_FACE for other in others)


def _finished(face: _Followed, times: NDArray[np.float64]) -> FaceTrack:
    n = len(times)
    numbers = np.array(face.numbers)
    rows = np.concatenate(face.rows)
    values = np.ascontiguousarray(rows[:, :-5])
    fill_eyes(values, times[numbers])
    mark_blinks(values, times[numbers])
    track = FaceTrack(
        face.id,
        times,
        np.zeros((n, len(COLUMNS)), np.float32),
        np.zeros(n, np.float32),
        np.zeros(n, np.bool_),
        np.zeros((n, 4), np.float32),
    )
    track.values[numbers] = values
    track.confidence[numbers] = rows[:, -5]
    track.mask[numbers] = True
    track.boxes[numbers] = rows[:, -4:]
    return track
