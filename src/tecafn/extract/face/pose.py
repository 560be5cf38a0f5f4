"""How a head is held: the rigid motion that brings an average face onto landmarks.

The average face is our own: landmarks of three people in four clips, superimposed, averaged and
made symmetric. Its unit is the distance between the outer corners of the eyes and its origin their
middle; x points to the picture's right, y down, z away from the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Points that no expression moves: those of the person's right side, then those in the middle.
_RIGHT: Final[dict[int, tuple[float, float, float]]] = {
    33: (-0.500, 0.000, 0.000),
    133: (-0.192, 0.012, -0.061),
    127: (-0.768, 0.071, 0.544),
    234: (-0.760, 0.228, 0.582),
    54: (-0.653, -0.367, 0.192),
    103: (-0.545, -0.474, 0.059),
}
_MIRROR: Final = {33: 263, 133: 362, 127: 356, 234: 454, 54: 284, 103: 332}
_MIDDLE: Final[dict[int, tuple[float, float, float]]] = {
    168: (0.000, -0.071, -0.240),
    6: (0.000, 0.014, -0.296),
    197: (0.000, 0.089, -0.358),
    195: (0.000, 0.156, -0.426),
    5: (0.000, 0.228, -0.496),
    1: (0.000, 0.393, -0.509),
    9: (0.000, -0.256, -0.239),
    10: (0.000, -0.587, -0.146),
}
_INDICES: Final = np.array([*_RIGHT, *(_MIRROR[k] for k in _RIGHT), *_MIDDLE])
_FACE: Final = np.array(
    [*_RIGHT.values(), *((-x, y, z) for x, y, z in _RIGHT.values()), *_MIDDLE.values()]
)


@dataclass(frozen=True)
class Pose:
    """picture = scale * rotation @ head + origin, in pixels.

    Args:
        rotation: (3, 3).
        scale: pixels between the outer corners of the eyes, seen from the front.
        origin: (3,) the middle between these corners.
    """

    rotation: NDArray[np.float64]
    scale: float
    origin: NDArray[np.float64]

    @property
    def pitch_deg(self) -> float:
        """Degrees by which the face looks up."""
        return math.degrees(math.asin(max(-1.0, min(1.0, float(self.rotation[1, 2])))))

    @property
    def yaw_deg(self) -> float:
        """Degrees by which the face is turned towards the picture's right."""
        return math.degrees(math.atan2(-self.rotation[0, 2], self.rotation[2, 2]))

    @property
    def roll_deg(self) -> float:
        """Degrees by which the head is tilted clockwise, as the picture shows it."""
        return math.degrees(math.atan2(self.rotation[1, 0], self.rotation[0, 0]))

    @property
    def frontal(self) -> float:
        """1 for a face seen from the front, 0 in profile."""
        return max(0.0, float(self.rotation[2, 2]))

    def to_head(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 3) of the picture in the head's own axes and unit."""
        return (points - self.origin) @ self.rotation / self.scale

    def flat_to_head(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets (N, 2) in the picture between points of the face's plane, in the head's unit."""
        flat = self.scale * self.rotation[:2, :2]
        determinant = flat[0, 0] * flat[1, 1] - flat[0, 1] * flat[1, 0]
        if determinant < 0.05 * self.scale**2:  # nearly in profile: it cannot be told
            flat = flat + 0.25 * self.scale * np.eye(2)
        return np.asarray(np.linalg.solve(flat, offsets.T).T)


def fit_pose(landmarks: NDArray[np.float64]) -> Pose:
    """The pose that brings the average face nearest to landmarks (468, 3).

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991.
    """
    seen = landmarks[_INDICES]
    middle, mean = seen.mean(axis=0), _FACE.mean(axis=0)
    spread = _FACE - mean
    left, values, right = np.linalg.svd((seen - middle).T @ spread)
    sign = np.array([1.0, 1.0, math.copysign(1.0, np.linalg.det(left @ right))])
    rotation = left * sign @ right
    scale = max(float((values * sign).sum() / (spread**2).sum()), 1e-6)
    return Pose(rotation, scale, middle - scale * rotation @ mean)
