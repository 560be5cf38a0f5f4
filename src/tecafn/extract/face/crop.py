"""Turned squares of a picture: cut out for a network, and its points brought back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Square:
    """A square in a picture.

    Args:
        x, y: its middle, pixels.
        size: its side, pixels.
        angle: radians by which its upper edge is turned clockwise against the picture's.
        mirrored: read from right to left.
    """

    x: float
    y: float
    size: float
    angle: float
    mirrored: bool = False

    def axes(self, pixels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix (2, 2) and offset (2,): picture = matrix @ crop + offset, crop in ``pixels``."""
        step = self.size / pixels
        cos, sin = step * math.cos(self.angle), step * math.sin(self.angle)
        matrix = np.array([[cos, -sin], [sin, cos]])
        if self.mirrored:
            matrix[:, 0] *= -1
        return matrix, np.array([self.x, self.y]) - matrix @ np.full(2, pixels / 2)


def cut(image: Image, square: Square, pixels: int) -> NDArray[np.uint8]:
    """(pixels, pixels, 3) of a picture; black where the square reaches beyond it."""
    from PIL.Image import Resampling, Transform

    matrix, (x, y) = square.axes(pixels)
    (a, b), (c, d) = matrix
    crop = image.transform(
        (pixels, pixels), Transform.AFFINE, (a, b, x, c, d, y), Resampling.BILINEAR
    )
    return np.asarray(crop)


def back(points: NDArray[np.floating], square: Square, pixels: int) -> NDArray[np.float64]:
    """Points (N, 2 or 3) of a crop as pixels of its picture; depth grows with the size."""
    matrix, offset = square.axes(pixels)
    found = points.astype(np.float64)
    found[:, :2] = found[:, :2] @ matrix.T + offset
    if found.shape[1] > 2:
        found[:, 2] *= square.size / pixels
    return found
