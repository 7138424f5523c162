"""Views: named pure functions image -> image, the vocabulary of robustness.

A name is a word and, for most, a strength: `jpeg-30`, `blur-1.5`, `brightness-1.2`, `stain-shift-0.2`, `scanner-1`,
`rot90`.
The same name gives the same pixels for the same image, everywhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

View = Callable[["Image"], "Image"]

# Optical density of pure haematoxylin, eosin and their residual, rows of unit length (Ruifrok and Johnston 2001).
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])

# How one camera's R, G, B read in another's: rows sum to 1, so that glass stays white. Chosen, not measured.
SCANNER = np.array([[1.16, -0.10, -0.06], [-0.05, 1.09, -0.04], [0.04, -0.18, 1.14]])


def _turn(method: str) -> View:
    def view(image: Image) -> Image:
        from PIL import Image as PILImage

        return image.transpose(PILImage.Transpose[method])

    return view


PLAIN: dict[str, View] = {
    "original": lambda image: image,
    "rot90": _turn("ROTATE_90"),
    "rot180": _turn("ROTATE_180"),
    "rot270": _turn("ROTATE_270"),
    "flip-h": _turn("FLIP_LEFT_RIGHT"),
    "flip-v": _turn("FLIP_TOP_BOTTOM"),
}


def jpeg(image: Image, quality: float) -> Image:
    """Compressed once at this JPEG quality (1 to 95), chroma halved as scanners do."""
    from PIL import Image as PILImage

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality), subsampling=2)
    return PILImage.open(buffer).convert("RGB")


def blur(image: Image, sigma: float) -> Image:
    """Gaussian blur, sigma in pixels: a slide out of focus."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(sigma))


def brightness(image: Image, factor: float) -> Image:
    """Every value times `factor`, clipped."""
    return image.point([min(255, round(v * factor)) for v in range(256)] * 3)


def stain_shift(image: Image, strength: float) -> Image:
    """More haematoxylin by `strength`, less eosin by the same share, in optical-density space with fixed stain vectors."""
    from PIL import Image as PILImage

    density = -np.log(np.maximum(np.asarray(image, np.float64), 1.0) / 255.0)
    amounts = density @ np.linalg.inv(STAINS)
    shifted = amounts * np.array([1 + strength, 1 - strength, 1.0]) @ STAINS
    return PILImage.fromarray(np.clip(np.rint(255.0 * np.exp(-shifted)), 0, 255).astype(np.uint8))


def scanner(image: Image, strength: float) -> Image:
    """Another scanner's colours: a fixed 3 x 3 matrix on the values, of which 0 is none and 1 the whole; white stays."""
    from PIL import Image as PILImage

    mixed = np.eye(3) + strength * (SCANNER - np.eye(3))
    values = np.asarray(image, np.float64) @ mixed.T
    return PILImage.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


# word -> (function, least, most)
GRADED: dict[str, tuple[Callable[[Image, float], Image], float, float]] = {
    "jpeg": (jpeg, 1, 95),
    "blur": (blur, 0, 20),
    "brightness": (brightness, 0, 3),
    "stain-shift": (stain_shift, -1, 1),
    "scanner": (scanner, -2, 2),
}


def view(name: str) -> View:
    """The function that a view's name means; UsageError lists the names when there is none."""
    if name in PLAIN:
        return PLAIN[name]
    found = re.fullmatch(r"([a-z-]+?)-(-?\d+(?:\.\d+)?)", name)
    if found and found[1] in GRADED:
        function, least, most = GRADED[found[1]]
        strength = float(found[2])
        if least <= strength <= most:
            return lambda image: function(image, strength)
        raise UsageError(f"View {name}: the strength of {found[1]} lies between {least} and {most}.")
    graded = ", ".join(f"{w}-<{a} to {b}>" for w, (_, a, b) in GRADED.items())
    raise UsageError(f"There is no view called {name!r}. Views: {', '.join(PLAIN)}, {graded}.")
