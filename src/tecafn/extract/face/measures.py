"""What a face does in a picture, in named numbers that neither its place, size nor pose changes.

Landmarks are brought into the head's own axes first (``pose``), so a length is in units of the
distance between the outer corners of the eyes. Right and left are the person's.

Eyes are measured on the iris model's contour: the mesh of 468 points smooths lids and shows no
blink. Brows of this mesh follow expression little; the mouth carries most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.face.mesh import LEFT_EYE, RIGHT_EYE, Mesh
from tecafn.extract.face.pose import Pose, fit_pose

COLUMNS: Final = (
    "head_pitch_deg",  # looking up
    "head_yaw_deg",  # turned to the picture's right
    "head_roll_deg",  # tilted clockwise
    "gaze_right_x",  # the iris right of the corners' middle (picture's right), in eye widths
    "gaze_right_y",  # above it
    "gaze_left_x",
    "gaze_left_y",
    "eye_opening_right",  # area between the lids / square of the eye's width
    "eye_opening_left",
    "blink",  # 1 while both eyes are closed, else 0
    "brow_inner_right",  # height above the inner corner of the eye
    "brow_inner_left",
    "brow_outer_right",  # height above the outer corner
    "brow_outer_left",
    "brow_distance",  # between the inner ends: small in a frown
    "nose_wrinkle",  # inner corners of the eyes to the nostrils: small when wrinkled
    "cheek_right",  # eye to cheek: small when raised
    "cheek_left",
    "mouth_opening",  # between the inner edges of the lips
    "mouth_width",
    "lip_corner_right",  # height above the lips' middle: a smile
    "lip_corner_left",
    "lip_upper",  # nose to upper lip: small when raised
    "lip_lower",  # nose to lower lip
    "lip_thickness",  # of both: small when pressed together
    "lip_forward",  # lips before the corners of the mouth: pouting
    "jaw_drop",  # nose to chin
)
BLINK: Final = COLUMNS.index("blink")
_FIRST_OF_EYES: Final = BLINK - 6
_OPENINGS: Final = slice(BLINK - 2, BLINK)
MOUTH_OPENING: Final = COLUMNS.index("mouth_opening")
# Closed is below this share of the track's median opening; counted over a minute around.
_CLOSED: Final = 0.6
_LIDS: Final = slice(0, 16)
_LID_ORDER: Final = np.array([*range(9), *range(15, 8, -1)])


def measure(meshes: Sequence[Mesh], pose: Pose | None = None) -> NDArray[np.float32]:
    """(N, 27) the measures of ``COLUMNS`` of N faces.

    ``blink`` is 0 here, see ``mark_blinks``; what comes from eyes that were not looked at is NaN.

    Args:
        meshes: of any pictures.
        pose: of all of them; None = it is fitted.
    """
    landmarks = np.stack([mesh.landmarks for mesh in meshes])
    pose = pose or fit_pose(landmarks)
    head = pose.to_head(landmarks)
    x, y, z = (head[..., k].T for k in range(3))  # each (468, N)
    right, left = (_eyes(meshes, pose, number) for number in range(2))
    middle_of_lips = (y[13] + y[14]) / 2
    values = (
        pose.pitch_deg,
        pose.yaw_deg,
        pose.roll_deg,
        *right[:2],
        *left[:2],
        right[2],
        left[2],
        np.zeros(len(meshes)),
        y[RIGHT_EYE[1]] - (y[55] + y[107]) / 2,
        y[LEFT_EYE[1]] - (y[285] + y[336]) / 2,
        y[RIGHT_EYE[0]] - (y[46] + y[70]) / 2,
        y[LEFT_EYE[0]] - (y[276] + y[300]) / 2,
        (x[285] + x[336] - x[55] - x[107]) / 2,
        (y[129] + y[358] - y[RIGHT_EYE[1]] - y[LEFT_EYE[1]]) / 2,
        y[205] - (y[33] + y[133]) / 2,
        y[425] - (y[263] + y[362]) / 2,
        (_apart(head, 13, 14) + _apart(head, 82, 87) + _apart(head, 312, 317)) / 3,
        _apart(head, 61, 291),
        middle_of_lips - y[61],
        middle_of_lips - y[291],
        y[0] - y[2],
        y[17] - y[2],
        _apart(head, 0, 13) + _apart(head, 14, 17),
        (z[61] + z[291] - z[0] - z[17]) / 2,
        y[152] - y[2],
    )
    return np.stack(values, axis=1).astype(np.float32)


def _apart(points: NDArray[np.float64], one: int, other: int) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points[:, one] - points[:, other], axis=-1))


def _eyes(meshes: Sequence[Mesh], pose: Pose, number: int) -> NDArray[np.float64]:
    """(3, N) gaze along and across, and opening, of all right (0) or left (1) eyes."""
    rows = [k for k, mesh in enumerate(meshes) if mesh.looked is not None]
    found = np.full((3, len(meshes)), np.nan)
    if not rows:
        return found
    eyes = [eyes[number] for mesh in meshes if (eyes := mesh.eyes) is not None]
    ring = np.stack([eye.contour[_LIDS] for eye in eyes])
    middle = ring.mean(axis=1, keepdims=True)
    iris = np.stack([eye.iris[:1] for eye in eyes])
    pose = Pose(pose.rotation[rows], pose.scale[rows], pose.origin[rows])
    lids, iris = pose.flat_to_head(ring - middle), pose.flat_to_head(iris - middle)[:, 0]
    start, end = lids[:, 0], lids[:, 8]
    axis = np.where((end - start)[:, :1] > 0, end - start, start - end)
    width = np.maximum(np.linalg.norm(axis, axis=1), 1e-6)
    axis = axis / width[:, None]
    upward = np.stack([axis[:, 1], -axis[:, 0]], axis=1)
    offset = iris - (start + end) / 2
    x, y = lids[:, _LID_ORDER, 0], lids[:, _LID_ORDER, 1]
    area = 0.5 * np.abs((x * np.roll(y, 1, axis=1) - y * np.roll(x, 1, axis=1)).sum(axis=1))
    found[0, rows] = (offset * axis).sum(axis=1) / width
    found[1, rows] = (offset * upward).sum(axis=1) / width
    found[2, rows] = area / width**2
    return found


def fill_eyes(values: NDArray[np.float32], times: NDArray[np.float64]) -> None:
    """Give the pictures of a track (n, 27) whose eyes were not looked at what lies between."""
    known = np.isfinite(values[:, BLINK - 1])
    if known.all():
        return
    for column in range(_FIRST_OF_EYES, BLINK):
        values[~known, column] = np.interp(times[~known], times[known], values[known, column])


def confidence(meshes: Sequence[Mesh], pose: Pose, size: tuple[int, int]) -> NDArray[np.float64]:
    """(N,) 0 to 1: the mesh's own score, times what of the face is in the picture and faces it."""
    points = np.stack([mesh.landmarks[:, :2] for mesh in meshes])
    inside = ((points >= 0) & (points < size)).all(axis=-1).mean(axis=-1)
    scores = np.array([mesh.score for mesh in meshes])
    return np.asarray(scores * inside * np.minimum(1.0, 2 * pose.frontal))


def mark_blinks(values: NDArray[np.float32], times: NDArray[np.float64]) -> None:
    """Write the column ``blink`` of a track's seen frames (n, 27), in order of time."""
    opening = values[:, _OPENINGS].mean(axis=1)
    closed = np.zeros(len(values), np.float32)
    for first in np.unique(np.floor(times / 60.0)):
        inside = np.floor(times / 60.0) == first
        around = (times >= 60.0 * first - 30) & (times < 60.0 * first + 90)
        closed[inside] = opening[inside] < _CLOSED * np.median(opening[around])
    values[:, BLINK] = closed
