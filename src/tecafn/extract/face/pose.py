"""How a head is held: the rigid motion that brings an average face onto landmarks.

The average face is our own: landmarks of three people in four clips, superimposed, averaged and
made symmetric. Its unit is the distance between the outer corners of the eyes and its origin their
middle; x points to the picture's right, y down, z away from the camera.
"""

from __future__ import annotations

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
    """picture = scale * rotation @ head + origin, in pixels; of one face, or of N at once.

    Args:
        rotation: (3, 3) or (N, 3, 3).
        scale: () or (N,) pixels between the outer corners of the eyes, seen from the front.
        origin: (3,) or (N, 3) the middle between these corners.
    """

    rotation: NDArray[np.float64]
    scale: NDArray[np.float64]
    origin: NDArray[np.float64]

    @property
    def pitch_deg(self) -> NDArray[np.float64]:
        """Degrees by which the face looks up."""
        return np.degrees(np.arcsin(np.clip(self.rotation[..., 1, 2], -1.0, 1.0)))

    @property
    def yaw_deg(self) -> NDArray[np.float64]:
        """Degrees by which the face is turned towards the picture's right."""
        return np.degrees(np.arctan2(-self.rotation[..., 0, 2], self.rotation[..., 2, 2]))

    @property
    def roll_deg(self) -> NDArray[np.float64]:
        """Degrees by which the head is tilted clockwise, as the picture shows it."""
        return np.degrees(np.arctan2(self.rotation[..., 1, 0], self.rotation[..., 0, 0]))

    @property
    def frontal(self) -> NDArray[np.float64]:
        """1 for a face seen from the front, 0 in profile."""
        return np.maximum(0.0, self.rotation[..., 2, 2])

    def to_head(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (..., P, 3) of the picture in the head's own axes and unit."""
        turned = (points - self.origin[..., None, :]) @ self.rotation
        return np.asarray(turned / self.scale[..., None, None])

    def flat_to_head(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets (..., P, 2) in the picture between points of the face's plane, in its unit."""
        size = self.scale[..., None, None]
        flat = size * self.rotation[..., :2, :2]
        # Nearly in profile it cannot be told.
        is_flat = np.linalg.det(flat) >= 0.05 * self.scale**2
        flat = np.where(is_flat[..., None, None], flat, flat + 0.25 * size * np.eye(2))
        return np.asarray(np.swapaxes(np.linalg.solve(flat, np.swapaxes(offsets, -1, -2)), -1, -2))


def fit_pose(landmarks: NDArray[np.float64]) -> Pose:
    """The pose that brings the average face nearest to landmarks (468, 3), or (N, 468, 3).

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991.
    """
    seen = landmarks[..., _INDICES, :]
    middle, mean = seen.mean(axis=-2), _FACE.mean(axis=0)
    spread = _FACE - mean
    left, values, right = np.linalg.svd(np.swapaxes(seen - middle[..., None, :], -1, -2) @ spread)
    sign = np.ones_like(values)
    sign[..., 2] = np.copysign(1.0, np.linalg.det(left @ right))
    rotation = left * sign[..., None, :] @ right
    scale = np.maximum((values * sign).sum(axis=-1) / (spread**2).sum(), 1e-6)
    return Pose(rotation, scale, middle - scale[..., None] * (rotation @ mean))
