"""What a face does in a picture, in named numbers that neither its place, size nor pose changes.

Landmarks are brought into the head's own axes first (``pose``), so a length is in units of the
distance between the outer corners of the eyes. Right and left are the person's.

Eyes are measured on the iris model's contour: the mesh of 468 points smooths lids and shows no
blink. Brows of this mesh follow expression little; the mouth carries most.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.face.mesh import LEFT_EYE, RIGHT_EYE, Eye, Mesh
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
_OPENINGS: Final = slice(BLINK - 2, BLINK)
MOUTH_OPENING: Final = COLUMNS.index("mouth_opening")
# Closed is below this share of the track's median opening; counted over a minute around.
_CLOSED: Final = 0.6
_LIDS: Final = slice(0, 16)
_LID_ORDER: Final = np.array([*range(9), *range(15, 8, -1)])


def measure(mesh: Mesh, pose: Pose | None = None) -> NDArray[np.float32]:
    """(27,) the measures of ``COLUMNS``; ``blink`` is 0 here, see ``mark_blinks``."""
    pose = pose or fit_pose(mesh.landmarks)
    head = pose.to_head(mesh.landmarks)
    x, y, z = head.T
    right, left = _eye(mesh.right, pose), _eye(mesh.left, pose)
    middle_of_lips = (y[13] + y[14]) / 2
    return np.array(
        [
            pose.pitch_deg,
            pose.yaw_deg,
            pose.roll_deg,
            *right[:2],
            *left[:2],
            right[2],
            left[2],
            0.0,
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
        ],
        dtype=np.float32,
    )


def _apart(points: NDArray[np.float64], one: int, other: int) -> float:
    return float(np.linalg.norm(points[one] - points[other]))


def _eye(eye: Eye, pose: Pose) -> tuple[float, float, float]:
    """Gaze along and across, and opening."""
    lids = pose.flat_to_head(eye.contour[_LIDS] - eye.contour[_LIDS].mean(axis=0))
    iris = pose.flat_to_head(eye.iris[:1] - eye.contour[_LIDS].mean(axis=0))[0]
    start, end = lids[0], lids[8]
    axis = end - start if (end - start)[0] > 0 else start - end
    width = max(float(np.hypot(*axis)), 1e-6)
    axis = axis / width
    upward = np.array([axis[1], -axis[0]])
    offset = iris - (start + end) / 2
    ring = lids[_LID_ORDER]
    area = 0.5 * abs(
        float(
            np.dot(ring[:, 0], np.roll(ring[:, 1], 1)) - np.dot(ring[:, 1], np.roll(ring[:, 0], 1))
        )
    )
    return float(offset @ axis) / width, float(offset @ upward) / width, area / width**2


def confidence(mesh: Mesh, pose: Pose, size: tuple[int, int]) -> float:
    """0 to 1: the mesh's own score, times what of the face is in the picture and faces it."""
    points = mesh.landmarks[:, :2]
    inside = ((points >= 0) & (points < size)).all(axis=1).mean()
    return float(mesh.score * inside * min(1.0, 2 * pose.frontal))


def mark_blinks(values: NDArray[np.float32], times: NDArray[np.float64]) -> None:
    """Write the column ``blink`` of a track's seen frames (n, 27), in order of time."""
    opening = values[:, _OPENINGS].mean(axis=1)
    closed = np.zeros(len(values), np.float32)
    for first in np.unique(np.floor(times / 60.0)):
        inside = np.floor(times / 60.0) == first
        around = (times >= 60.0 * first - 30) & (times < 60.0 * first + 90)
        closed[inside] = opening[inside] < _CLOSED * np.median(opening[around])
    values[:, BLINK] = closed
