"""The three things that all phantom tissue is drawn from: smooth noise, wavy fibres, and ovals.

All arithmetic is float64 and is rounded to bytes once, at the very end, so that a last-bit difference between two
machines' maths libraries does not reach a pixel.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np

_ATLAS = 512  # side of the wrapped noise sheets that every field is cut from, px

_FIELDS = ("x", "y", "a", "b", "angle", "lump", "dark", "clear", "grain", "nucleolus")
NUCLEUS = np.dtype([(name, "f8") for name in _FIELDS])
"""One nucleus: centre x, y and half axes a, b in px; angle in radians; `lump` roughens the outline; `dark` is its
haematoxylin; `clear` empties its middle, `grain` clumps its chromatin, `nucleolus` adds a spot (each about 0..1)."""


def generator(seed: int, *key: object) -> np.random.Generator:
    """A random generator that depends on the seed and on the words and numbers of `key`, and on nothing else."""
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


@cache
def _sheet(across: float, along: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    white = generator(0, "sheet", across, along).standard_normal((_ATLAS, _ATLAS))
    smooth = gaussian_filter(white, (across, along), mode="wrap")
    return (smooth - smooth.mean()) / smooth.std()


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Smooth noise (h, w) with zero mean and unit spread over features of about `sigma` px."""
    top, left = rng.integers(_ATLAS, size=2)
    rows = (top + np.arange(shape[0])) % _ATLAS
    columns = (left + np.arange(shape[1])) % _ATLAS
    return _sheet(sigma, sigma).take(rows, axis=0).take(columns, axis=1)


def fibres(
    rng: np.random.Generator,
    shape: tuple[int, int],
    angle: float,
    wave: float,
    width: float = 1.3,
    length: float = 18.0,
) -> np.ndarray:
    """Noise (h, w), zero mean and unit spread, drawn out along `angle` (radians) and swaying by about `wave` px."""
    y, x = np.indices(shape, dtype=float)
    cos, sin = np.cos(angle), np.sin(angle)
    across = cos * y - sin * x + wave * noise(rng, shape, 24.0)
    # The sheet is drawn at two samples a px, so that the nearest one is near enough.
    rows = np.rint(2.0 * across).astype(int) + rng.integers(_ATLAS)
    columns = np.rint(2.0 * (cos * x + sin * y)).astype(int) + rng.integers(_ATLAS)
    return _sheet(2.0 * width, 2.0 * length)[rows % _ATLAS, columns % _ATLAS]


def step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth ramp between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def scatter(rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float = 0.36) -> np.ndarray:
    """Points (n, 2) as x, y about `spacing` px apart, over the field and one spacing beyond its edges."""
    rows = np.arange(-1.0, shape[0] / (spacing * 0.87) + 1.0)
    columns = np.arange(-1.0, shape[1] / spacing + 1.0)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    grid[1::2, :, 0] += 0.5  # every second row is shifted: a hexagonal packing
    grid = grid.reshape(-1, 2) + rng.uniform(0.0, 1.0, size=2) + rng.uniform(-jitter, jitter, size=(grid.size // 2, 2))
    return grid * (spacing, spacing * 0.87)


def population(
    rng: np.random.Generator,
    at: np.ndarray,
    *,
    radius: float,
    spread: float,
    aspect: float,
    angle: float | np.ndarray,
    dark: float,
    lump: float = 0.1,
    clear: float = 0.0,
    grain: float = 0.15,
    nucleolus: float = 0.0,
) -> np.ndarray:
    """Nuclei (n,) of type NUCLEUS at the points `at` (n, 2); sizes, shapes and darkness vary about the given means."""
    n = len(at)
    size = radius * np.exp(spread * np.clip(rng.standard_normal(n), -2.0, 2.0))
    stretch = np.sqrt(1.0 + (aspect - 1.0) * rng.uniform(0.4, 1.6, n))
    out = np.zeros(n, NUCLEUS)
    out["x"], out["y"] = at[:, 0], at[:, 1]
    out["a"], out["b"], out["angle"] = size * stretch, size / stretch, angle
    out["dark"] = dark * rng.uniform(0.8, 1.2, n)
    out["clear"] = clear * rng.uniform(0.4, 1.3, n)
    out["nucleolus"] = nucleolus * (rng.uniform(size=n) < 0.7)
    out["lump"], out["grain"] = lump, grain
    return out


def ovals(shape: tuple[int, int], table: np.ndarray, rough: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw ovals that push against each other: each pixel belongs to the one it lies deepest in.

    `table` (n,) has the geometry fields of NUCLEUS; `rough` (h, w) is the noise that roughens outlines. Returns three
    arrays (h, w): depth inside the owner in px (negative outside), depth in the runner-up, owner (row of `table`; -1).
    """
    best = np.full(shape, -1e3)
    second = np.full(shape, -1e3)
    owner = np.full(shape, -1)
    for row, (x, y, a, b, angle, lump) in enumerate(table[list(_FIELDS[:6])].tolist()):
        reach = max(a, b) * (1.0 + 2.0 * lump) + 1.0
        top, bottom = max(0, int(y - reach)), min(shape[0], int(y + reach) + 2)
        left, right = max(0, int(x - reach)), min(shape[1], int(x + reach) + 2)
        if top >= bottom or left >= right:
            continue
        box = (slice(top, bottom), slice(left, right))
        dx, dy = np.arange(left, right) - x, (np.arange(top, bottom) - y)[:, None]
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = (cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b
        depth = (1.0 - np.sqrt(u * u + v * v) + lump * rough[box]) * min(a, b)
        before = best[box]
        wins = depth > before
        second[box] = np.maximum(second[box], np.where(wins, before, depth))
        owner[box][wins] = row
        best[box] = np.where(wins, depth, before)
    return best, second, owner


def within(table: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The nuclei of the table whose centre lies in a region (h, w) bool; beyond the edge the nearest pixel counts."""
    rows = np.clip(table["y"].astype(int), 0, region.shape[0] - 1)
    return table[region[rows, np.clip(table["x"].astype(int), 0, region.shape[1] - 1)]]
