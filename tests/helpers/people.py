"""A real face for tests: the portrait that Matplotlib ships, moved, turned, and made to talk."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image, ImageDraw


@cache
def portrait() -> Image.Image:
    """Rear Admiral Grace Hopper (a work of the US Navy, public domain), 256 x 300."""
    path = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(path) as image:
        return image.convert("RGB").resize((256, 300))


def scene(
    *places: int, size: tuple[int, int] = (640, 304), openings: tuple[float, ...] = ()
) -> NDArray[np.uint8]:
    """(H, W, 3) grey, with the portrait's left edge at each place and its mouth open so far.

    Args:
        places: pixels.
        size: width and height of the picture.
        openings: of each mouth, 0 to 1.
    """
    picture = Image.new("RGB", size, (128, 128, 128))
    for number, place in enumerate(places):
        image = portrait().copy()
        opening = openings[number] if number < len(openings) else 0.0
        if opening > 0:
            _open_mouth(image, opening)
        picture.paste(image, (place, 0))
    return np.asarray(picture)


def _open_mouth(image: Image.Image, opening: float) -> None:
    """Move the part below the lips' middle down and show the dark between."""
    middle, across, height = (139, 136), 22, round(14 * opening)
    left, top = middle[0] - 2 * across, middle[1]
    lower = image.crop((left, top, middle[0] + 2 * across, top + 34))
    image.paste(lower, (left, top + height))
    ImageDraw.Draw(image).ellipse(
        (middle[0] - across, top - 1, middle[0] + across, top + height), fill=(50, 20, 20)
    )
