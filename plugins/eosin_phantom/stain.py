"""What a laboratory and its scanner do to tissue: two dyes mixed in optical density, then a camera.

Every laboratory and scanner is a distance from one reference, and `strength` scales that distance: at 0 all are the
reference, at 1 as listed, above 1 exaggerated. The mixing is Beer and Lambert's law as in Ruifrok and Johnston 2001.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from .field import Field


@dataclass(frozen=True)
class Stain:
    """Optical density (natural logarithm) in R, G, B of one unit of each dye, and how much of each is taken up."""

    haematoxylin: tuple[float, float, float] = (0.62, 0.72, 0.32)
    eosin: tuple[float, float, float] = (0.16, 0.80, 0.44)
    uptake: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Scanner:
    """White point and crosstalk of R, G, B, tone curve, blur (px), noise (grey levels of 255), JPEG quality."""

    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crosstalk: float = 0.0
    gamma: float = 1.0
    blur: float = 0.45
    noise: float = 0.0
    quality: float = 100.0


REFERENCE = Stain(), Scanner()
STAINS = {
    "north": Stain(),
    "east": Stain((0.70, 0.66, 0.22), (0.05, 0.70, 0.24), (0.85, 0.8)),
    "south": Stain((0.54, 0.76, 0.46), (0.22, 0.86, 0.62), (1.25, 1.2)),
    "west": Stain((0.66, 0.70, 0.30), (0.14, 0.84, 0.34), (0.8, 1.35)),
}
SCANNERS = {
    "argus": Scanner(),
    "briareus": Scanner((0.97, 0.95, 1.0), 0.06, 1.12, 0.8, 2.0, 80.0),
    "cyclops": Scanner((1.0, 0.98, 0.93), -0.05, 0.88, 0.6, 4.0, 90.0),
}
CENTRES = {
    "north": ("north", "argus"), "east": ("east", "briareus"), "south": ("south", "cyclops"), "west": ("west", "argus"),
}  # fmt: skip


def dye(tissue: Field, stain: str, strength: float = 1.0, dose: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Light (h, w, 3) in 0..1 that passes the stained section; `dose` is how much of each dye this one slide got."""
    own, plain = STAINS[stain], REFERENCE[0]
    here = np.array([plain.haematoxylin, plain.eosin]) * np.array(plain.uptake)[:, None]
    there = np.array([own.haematoxylin, own.eosin]) * np.array(own.uptake)[:, None]
    vectors = np.maximum(_between(here, there, strength), 0.01) * np.array(dose)[:, None]
    density = sum(amount[:, :, None] * vector for amount, vector in zip(tissue.dyes, vectors, strict=True))
    return np.exp(-density)


def scan(
    light: np.ndarray, scanner: str, rng: np.random.Generator, strength: float = 1.0, defocus: float = 0.0
) -> np.ndarray:
    """The picture (h, w, 3) uint8 that a scanner takes of light (h, w, 3) in 0..1, `defocus` px out of focus."""
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    own, plain = SCANNERS[scanner], REFERENCE[1]
    cross = strength * own.crosstalk
    light = (1.0 - cross) * light + cross * light[:, :, [1, 2, 0]]
    light = np.clip(light, 0.0, 1.0) ** max(_between(plain.gamma, own.gamma, strength), 0.2)
    light = light * _between(np.array(plain.white), np.array(own.white), strength)
    blur = _between(plain.blur, own.blur, strength) + defocus
    light = gaussian_filter(light, (blur, blur, 0))
    grey = 244.0 * light
    if strength * own.noise > 0:
        grey = grey + strength * own.noise * rng.standard_normal(grey.shape)
    picture = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    quality = round(_between(plain.quality, own.quality, strength))
    if quality >= 100:
        return picture
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=max(quality, 5))
    return np.asarray(Image.open(file))


def _between(here: Any, there: Any, strength: float) -> Any:
    return here + strength * (there - here)
