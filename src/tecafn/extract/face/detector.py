"""Where faces are: MediaPipe's full-range detector, which finds faces of 32 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.face.crop import Square
from tecafn.extract.face.models import Network, find

if TYPE_CHECKING:
    from PIL.Image import Image

_CELLS: Final = 48  # a grid over the 192 x 192 input, one anchor per cell
_LOWEST_SCORE: Final = 0.6
_OVERLAP: Final = 0.3
# The eyes' key points tell the angle; a region is half as large again as the box.
_MARGIN: Final = 1.5


@dataclass(frozen=True)
class Detection:
    """A face as the detector sees it, in pixels of the picture.

    Args:
        box: left, top, right, bottom.
        score: 0 to 1.
        region: the square in which its landmarks are to be looked for.
    """

    box: tuple[float, float, float, float]
    score: float
    region: Square


class Detector:
    """Finds faces in a picture.

    Source: V. Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on mobile GPUs",
    2019; boxes, scores and the six key points are decoded as its Sect. 4 says.
    """

    def __init__(self, network: Network | None = None) -> None:
        self._network = network or Network(find("face_detection_full_range.tflite"))
        cells = (np.arange(_CELLS) + 0.5) / _CELLS
        self._anchors = np.stack(np.meshgrid(cells, cells), axis=-1).reshape(-1, 2)

    def __call__(self, image: Image) -> list[Detection]:
        """Faces, the most certain first."""
        pixels = self._network.size
        width, height = image.size
        # Letter-boxed: the longer side fills the input, the rest is black.
        side = max(width, height)
        scale = pixels / side
        small = image.resize((max(1, round(width * scale)), max(1, round(height * scale))))
        canvas = np.full((pixels, pixels, 3), -1.0, np.float32)
        left, top = (pixels - small.width) // 2, (pixels - small.height) // 2
        shown = np.asarray(small, np.float32)
        canvas[top : top + small.height, left : left + small.width] = shown / 127.5 - 1.0
        self._network(canvas)
        count = _CELLS * _CELLS
        logits = self._network.output(count, 1)[:, 0]
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0)))
        chosen = np.flatnonzero(scores > _LOWEST_SCORE)
        if not len(chosen):
            return []
        # Eight pairs: the middle of the box, its size, then six points; all but the size are
        # offsets from the anchor.
        pairs = self._network.output(count, 16)[chosen].astype(np.float64).reshape(-1, 8, 2)
        pairs /= pixels
        pairs[:, [0, 2, 3, 4, 5, 6, 7]] += self._anchors[chosen][:, None]
        places = (pairs * pixels - [left, top]) / scale
        half = np.abs(pairs[:, 1]) * pixels / scale / 2
        boxes = np.concatenate([places[:, 0] - half, places[:, 0] + half], axis=1)
        order = np.argsort(-scores[chosen], kind="stable")
        return _distinct(boxes[order], scores[chosen][order], places[order, 2:])


def _distinct(
    boxes: NDArray[np.float64], scores: NDArray[np.floating], points: NDArray[np.float64]
) -> list[Detection]:
    """One detection per face: those that overlap are averaged by their scores."""
    found = []
    left = np.arange(len(boxes))
    while len(left):
        best = left[0]
        together = overlap(boxes[best], boxes[left]) > _OVERLAP
        together[0] = True
        group = left[together]
        weights = scores[group] / scores[group].sum()
        box = weights @ boxes[group]
        eyes = np.tensordot(weights, points[group], axes=1)
        left = left[~together]
        if not np.isfinite(box).all() or (box[2:] - box[:2]).min() < 4:
            continue
        found.append(Detection(tuple(box.tolist()), float(scores[best]), _region(box, eyes)))
    return found


def _region(box: NDArray[np.float64], points: NDArray[np.float64]) -> Square:
    (x0, y0), (x1, y1) = points[0], points[1]  # the person's right eye, which is left, and left eye
    size = max(box[2] - box[0], box[3] - box[1]) * _MARGIN
    middle = (box[:2] + box[2:]) / 2
    return Square(float(middle[0]), float(middle[1]), float(size), math.atan2(y1 - y0, x1 - x0))


def overlap(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersection over union of a box with boxes (N, 4)."""
    corner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = np.clip(corner, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(both / np.maximum(areas - both, 1e-9))
