"""468 landmarks of a face, and the contours and irises of its eyes."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.beside import Later
from tecafn.extract.face.crop import Square, back, cut
from tecafn.extract.face.models import Network, find

if TYPE_CHECKING:
    from PIL.Image import Image

NUM_LANDMARKS: Final = 468
NUM_CONTOUR: Final = 71
# Outer and inner corner of the person's right eye, which is left in the picture, then the other's.
RIGHT_EYE: Final = (33, 133)
LEFT_EYE: Final = (263, 362)
_MARGIN: Final = 1.5
_EYE_MARGIN: Final = 2.3


@dataclass(frozen=True)
class Eye:
    """An eye in pixels of the picture.

    Args:
        contour: (71, 2); 0 to 8 one lid and 9 to 15 the other, then lines around and the brow.
        iris: (5, 2): its middle, then right, top, left and bottom.
    """

    contour: NDArray[np.float64]
    iris: NDArray[np.float64]


Eyes = tuple[Eye, Eye]


@dataclass(frozen=True)
class Mesh:
    """A face in pixels of the picture.

    Args:
        landmarks: (468, 3); depth in pixels too, smaller = nearer.
        score: 0 to 1: is it a face at all?
        looked: what a look at its eyes finds, perhaps still to come; None = there was none.
        region: the square that it was found in.
    """

    landmarks: NDArray[np.float64]
    score: float
    looked: Future[Eyes] | None
    region: Square

    @property
    def eyes(self) -> Eyes | None:
        """The person's right eye and left eye, waited for; None = they were not looked at."""
        return None if self.looked is None else self.looked.result()

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of all landmarks."""
        low, high = self.landmarks[:, :2].min(axis=0), self.landmarks[:, :2].max(axis=0)
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    @property
    def next_region(self) -> Square:
        """Where to look for it in the next picture."""
        left, top, right, bottom = self.box
        (x0, y0), (x1, y1) = self.landmarks[RIGHT_EYE[0], :2], self.landmarks[LEFT_EYE[0], :2]
        size = max(right - left, bottom - top) * _MARGIN
        angle = math.atan2(y1 - y0, x1 - x0)
        return Square((left + right) / 2, (top + bottom) / 2, size, angle)


class MeshFinder:
    """Finds landmarks in a region; the eyes are looked at in a thread of their own.

    Where a face is next depends on its landmarks and not on its eyes, so these need not be waited
    for.

    Source: Y. Kartynnik et al., "Real-time facial surface geometry from monocular video on mobile
    GPUs", 2019; A. Ablavatski et al., "Real-time pupil tracking from monocular video for digital
    puppetry", 2020.
    """

    def __init__(self, mesh: Network | None = None, iris: Network | None = None) -> None:
        self._mesh = mesh or Network(find("face_landmark.tflite"))
        self._iris = iris or Network(find("iris_landmark.tflite"))
        self._later: Later[Eyes] = Later()

    def close(self) -> None:
        """End its thread."""
        self._later.close()

    def __call__(
        self, image: Image, region: Square, *, lowest_score: float, with_eyes: bool = True
    ) -> Mesh | None:
        """Landmarks, and eyes if they are asked for; None where there is no face."""
        pixels = self._mesh.size
        crop = cut(image, region, pixels)
        self._mesh(crop.astype(np.float32) * np.float32(1 / 255))
        score = 1.0 / (1.0 + math.exp(-float(np.clip(self._mesh.output(1, 1, 1).item(), -80, 80))))
        if score < lowest_score:
            return None
        points = self._mesh.output(1, 1, 3 * NUM_LANDMARKS).reshape(NUM_LANDMARKS, 3)
        landmarks = back(points, region, pixels)
        if not np.isfinite(landmarks).all():
            return None
        looked = self._later(self._eyes, image, landmarks) if with_eyes else None
        return Mesh(landmarks, score, looked, region)

    def _eyes(self, image: Image, landmarks: NDArray[np.float64]) -> Eyes:
        right = self._eye(image, landmarks, RIGHT_EYE, mirrored=False)
        return right, self._eye(image, landmarks, LEFT_EYE, mirrored=True)

    def _eye(
        self,
        image: Image,
        landmarks: NDArray[np.float64],
        corners: tuple[int, int],
        *,
        mirrored: bool,
    ) -> Eye:
        """The model knows one eye; the other is shown to it in a mirror."""
        pixels = self._iris.size
        outer, inner = landmarks[corners[0], :2], landmarks[corners[1], :2]
        along = (outer - inner) if mirrored else (inner - outer)
        middle = (outer + inner) / 2
        square = Square(
            float(middle[0]),
            float(middle[1]),
            max(_EYE_MARGIN * float(np.hypot(*along)), 1.0),
            math.atan2(along[1], along[0]),
            mirrored,
        )
        self._iris(cut(image, square, pixels).astype(np.float32) * np.float32(1 / 255))
        contour = self._iris.output(3 * NUM_CONTOUR).reshape(NUM_CONTOUR, 3)[:, :2]
        iris = self._iris.output(15).reshape(5, 3)[:, :2]
        return Eye(back(contour, square, pixels), back(iris, square, pixels))
