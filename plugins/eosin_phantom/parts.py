"""What several tissues are made of: collagen, cytoplasm, acini, and the kinds of nuclei."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .shapes import fibres, noise, ovals, population, scatter, step, within

Shape = tuple[int, int]
Tissue = tuple[np.ndarray, np.ndarray]  # dyes (2, h, w): haematoxylin and eosin; nuclei (n,) of type NUCLEUS
Cells = Callable[[np.ndarray, np.ndarray], np.ndarray]  # points (n, 2), angles (n,) to nuclei (n,)


@dataclass(frozen=True)
class Patient:
    """What all tissue of one patient shares, each about -1..1: size of nuclei, crowding, depth of eosin."""

    size: float = 0.0
    crowd: float = 0.0
    eosin: float = 0.0


@dataclass(frozen=True)
class Tone:
    """What one piece of tissue takes up, whatever tissue it is: both dyes in its ground, haematoxylin in its nuclei."""

    haematoxylin: float
    eosin: float
    dark: float


def tone_of(rng: np.random.Generator, patient: Patient) -> Tone:
    """The tone of one piece of this patient's tissue."""
    return Tone(rng.uniform(0.05, 0.3), rng.uniform(0.35, 0.75) + 0.08 * patient.eosin, rng.uniform(0.9, 1.6))


def thinned(rng: np.random.Generator, at: np.ndarray, share: float) -> np.ndarray:
    """A random share of the points (n, 2)."""
    return at[rng.uniform(size=len(at)) < share]


def collagen(rng: np.random.Generator, shape: Shape, angle: float, tone: Tone, contrast: float) -> np.ndarray:
    """Fibre bundles along `angle`, torn by empty clefts: dyes (2, h, w)."""
    strands = fibres(rng, shape, angle, wave=9.0)
    bundles = fibres(rng, shape, angle, wave=9.0, width=4.0, length=24.0)
    threads = fibres(rng, shape, angle + rng.uniform(-0.2, 0.2), wave=14.0, width=0.7, length=7.0)
    haematoxylin = tone.haematoxylin + 0.03 * bundles
    eosin = tone.eosin + contrast * (0.10 * strands + 0.09 * bundles + 0.06 * threads)
    tear = holes(rng, fibres(rng, shape, angle, wave=9.0, width=2.6, length=24.0), 1.2, 2.4, soft=0.6)
    return dyes(haematoxylin, eosin) * (1.0 - tear)


def cytoplasm(rng: np.random.Generator, shape: Shape, tone: Tone) -> np.ndarray:
    """The body of epithelial cells, sound or not: dyes (2, h, w)."""
    cloud, fine = noise(rng, shape, 5.0), noise(rng, shape, 1.2)
    return dyes(
        tone.haematoxylin + 0.05 + 0.05 * cloud + 0.03 * fine,
        tone.eosin + 0.06 * cloud + 0.05 * fine,
    )


def dyes(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Both dyes (2, h, w), each at least what any tissue takes up."""
    return np.stack([np.maximum(haematoxylin, 0.0), np.maximum(eosin, 0.08)])


def holes(rng: np.random.Generator, texture: np.ndarray, low: float, high: float, soft: float) -> np.ndarray:
    """The share (h, w) of each pixel that is empty: where a texture tops a level drawn between `low` and `high`."""
    level = rng.uniform(low, high)
    return step(texture, level, level + soft)


def spindles(rng: np.random.Generator, shape: Shape, angle: float, spacing: float, tone: Tone) -> np.ndarray:
    """Fibroblasts: long thin nuclei along the fibres."""
    at = thinned(rng, scatter(rng, shape, spacing), 0.8)
    tilt = angle + 0.22 * rng.standard_normal(len(at))
    return population(
        rng, at, radius=4.9, spread=0.2, aspect=5.0, angle=tilt, dark=1.05 * tone.dark, clear=0.2, lump=0.1
    )


def small_round(rng: np.random.Generator, at: np.ndarray, tone: Tone) -> np.ndarray:
    """Lymphocytes: small, round, dark, with clumped chromatin."""
    turn = rng.uniform(0.0, np.pi, len(at))
    return population(
        rng, at, radius=5.6, spread=0.12, aspect=1.15, angle=turn, dark=1.15 * tone.dark, grain=0.3, lump=0.07
    )


def even(rng: np.random.Generator, radius: float, tone: Tone) -> Cells:
    """Nuclei of sound epithelium: all of a size, smooth."""
    return lambda at, angle: population(
        rng, at, radius=radius, spread=0.1, aspect=1.5, angle=angle, dark=1.1 * tone.dark,
        lump=0.06, clear=0.3, grain=0.25,
    )  # fmt: skip


def uneven(rng: np.random.Generator, radius: float, tone: Tone, grade: float) -> Cells:
    """Nuclei of tumour: the higher the grade (0..1), the more they differ and the more chromatin is cleared."""
    return lambda at, angle: population(
        rng, at, radius=radius, spread=0.12 + 0.14 * grade, aspect=1.4, angle=angle, dark=1.15 * tone.dark,
        lump=0.06 + 0.07 * grade, clear=0.3 + 0.15 * grade, grain=0.3, nucleolus=grade,
    )  # fmt: skip


def acini(
    rng: np.random.Generator, shape: Shape, tone: Tone, cells: Cells, radius: float, wall: float, rows: int
) -> Tissue:
    """Round glands in collagen: epithelium `wall` px high about a lumen, with `rows` rows of nuclei at its base."""
    grain = rng.uniform(0.0, np.pi)
    at = scatter(rng, shape, rng.uniform(84.0, 104.0), jitter=0.18)
    turn = rng.uniform(0.0, np.pi, len(at))
    rounds = population(rng, at, radius=43.0, spread=0.14, aspect=1.3, angle=turn, dark=0.0, lump=0.05)
    depth, _, owner = ovals(shape, rounds, noise(rng, shape, 12.0))
    inside = step(depth, -1.0, 1.0)
    lumen = step(depth + 1.5 * noise(rng, shape, 2.0), wall - 1.5, wall + 1.5)
    rings = [
        within(cells(*_circle(rng, one, (1.5 + 1.7 * row) * radius, radius)), owner == number)
        for number, one in enumerate(rounds)
        for row in range(rows)
    ]
    between = within(spindles(rng, shape, grain, 24.0, tone), depth < -3.0)
    body = cytoplasm(rng, shape, tone) * (1.0 - lumen)
    bed = collagen(rng, shape, grain, tone, contrast=0.8)
    return inside * body + (1.0 - inside) * bed, np.concatenate([*rings, between])


def _circle(rng: np.random.Generator, oval: np.void, inset: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) along an oval `inset` px inside its rim, room for one nucleus each; their angles to the centre."""
    a, b = max(float(oval["a"]) - inset, 1.0), max(float(oval["b"]) - inset, 1.0)
    n = int(np.pi * (a + b) / (2.05 * radius))
    turn = (np.arange(n) + rng.uniform(-0.25, 0.25, n)) * (2 * np.pi / max(n, 1))
    sway = rng.uniform(0.9, 1.03, n)
    u, v = a * np.cos(turn) * sway, b * np.sin(turn) * sway
    cos, sin = np.cos(oval["angle"]), np.sin(oval["angle"])
    spoke = np.stack([cos * u - sin * v, sin * u + cos * v], axis=1)
    return spoke + (oval["x"], oval["y"]), np.arctan2(spoke[:, 1], spoke[:, 0])
