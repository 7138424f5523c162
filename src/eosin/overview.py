"""One picture a slide: the mask and the grid on the thumbnail, so that people see what was taken for tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .coordinates import Coordinates
from .tiling import inked

if TYPE_CHECKING:
    from PIL.Image import Image

    from .slides import Slide

GLASS, TILE = (70, 110, 150), (10, 30, 180)
STRENGTH = 0.45  # of the glass's colour over the picture


def draw(slide: Slide, found: Coordinates, longest: int = 1200) -> Image:
    """The slide, at most `longest` pixels long: what the rule takes for glass (on the thumbnail's pixels) in a blue shade,
    tiles outlined. Coordinates of other tools have no mask: only tiles are drawn.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw

    picture = slide.overview(longest)
    mask = found.about.get("mask")
    if mask:
        pixels = np.asarray(picture)
        glass = inked(pixels, mask["dark"]) <= mask["above"]
        shaded = np.where(glass[..., None], (1 - STRENGTH) * pixels + STRENGTH * np.array(GLASS), pixels)
        picture = PILImage.fromarray(shaded.astype(np.uint8))
    scale = picture.width / slide.width, picture.height / slide.height
    pen = ImageDraw.Draw(picture)
    for x, y in found.xy.tolist():
        corner = (round(x * scale[0]), round(y * scale[1]))
        far = (round((x + found.edge) * scale[0]) - 1, round((y + found.edge) * scale[1]) - 1)
        pen.rectangle((*corner, max(corner[0], far[0]), max(corner[1], far[1])), outline=TILE)
    return picture
