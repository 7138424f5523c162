"""Six tissues, each painted as two sheets of dye (haematoxylin, eosin) and a table of nuclei.

Colour is made a poor guide on purpose, as it is in life: every piece draws its own tone, tumour and gland share their
cytoplasm and their amount of nuclei, and so do stroma and necrosis. What tells them apart is size, shape, texture,
arrangement.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .parts import (
    Ground,
    Patient,
    Shape,
    acini,
    collagen,
    cytoplasm,
    even,
    small_round,
    spindles,
    thinned,
    tone_of,
    uneven,
)
from .shapes import NUCLEUS, fibres, noise, ovals, population, scatter, step, value_at


def stroma(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """Collagen in wavy bundles, torn along its grain; spindle nuclei, sometimes a few lymphocytes."""
    tone, angle = tone_of(rng, patient), rng.uniform(0.0, np.pi)
    haematoxylin, eosin = collagen(rng, shape, angle, tone, rng.uniform(0.15, 1.1))
    fixed = spindles(rng, shape, angle, rng.uniform(22.0, 42.0) * (1.0 - 0.1 * patient.crowd), tone)
    visitors = small_round(rng, thinned(rng, scatter(rng, shape, 24.0, 0.5), rng.uniform(0.0, 0.3)), tone)
    return haematoxylin, eosin, np.concatenate([fixed, visitors])


def necrosis(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """Granular debris, sometimes with a memory of fibres; pale swollen ghosts and the dark dust of burst nuclei."""
    tone = tone_of(rng, patient)
    crumbs, clots, pools = noise(rng, shape, 1.2), noise(rng, shape, 4.0), noise(rng, shape, 12.0)
    memory = fibres(rng, shape, rng.uniform(0.0, np.pi), wave=9.0)
    texture = (
        rng.uniform(0.03, 0.1) * crumbs + rng.uniform(0.03, 0.1) * clots + 0.05 * pools + rng.uniform(0.0, 0.1) * memory
    )
    hole = step(clots + 0.8 * noise(rng, shape, 2.0), *rng.uniform(1.4, 2.6) + np.array([0.0, 0.5]))
    ghosts = thinned(rng, scatter(rng, shape, rng.uniform(28.0, 44.0)), 0.7)
    pale = population(
        rng, ghosts, radius=6.5, spread=0.25, aspect=1.3, angle=0.0, dark=0.42 * tone.dark, clear=0.5, lump=0.18
    )
    dust = scatter(rng, shape, rng.uniform(11.0, 17.0), jitter=0.5)
    at = np.zeros(len(dust), NUCLEUS)
    at["x"], at["y"] = dust.T
    dust = dust[rng.uniform(size=len(dust)) < step(value_at(pools, at), -0.8, 1.5)]
    turn = rng.uniform(0.0, np.pi, len(dust))
    dark = population(rng, dust, radius=2.8, spread=0.35, aspect=1.6, angle=turn, dark=1.1 * tone.dark, lump=0.2)
    haematoxylin = np.maximum(tone.haematoxylin + 0.04 * clots, 0.0)
    eosin = np.maximum(tone.eosin + texture, 0.08)
    return haematoxylin * (1 - hole), eosin * (1 - hole), np.concatenate([pale, dark])


def lymphocytes(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """A crowd of small round dark nuclei with next to no cytoplasm."""
    tone = tone_of(rng, patient)
    at = scatter(rng, shape, rng.uniform(12.5, 20.0) * (1.0 - 0.06 * patient.crowd), jitter=0.32)
    cells = small_round(rng, thinned(rng, at, rng.uniform(0.7, 0.97)), tone)
    gap = 0.85 * step(noise(rng, shape, 3.0), *rng.uniform(0.3, 1.6) + np.array([0.0, 0.8]))
    eosin = tone.eosin - 0.08 + 0.05 * noise(rng, shape, 5.0) + 0.06 * noise(rng, shape, 1.2)
    return tone.haematoxylin * (1 - gap), np.maximum(eosin, 0.08) * (1 - gap), cells


def tumour(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """Large uneven nuclei with clear centres and nucleoli: in solid nests, or aping glands."""
    tone, grade = tone_of(rng, patient), rng.uniform(0.0, 1.0)  # grade: from all but gland to wild
    radius = (6.2 + 3.4 * grade) * (1.0 + 0.1 * patient.size)

    def cells(rng: np.random.Generator, at: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return uneven(rng, at, turn, radius, tone, grade)

    if rng.uniform() < 0.6 * (1.0 - grade):
        return acini(rng, shape, tone, cells, radius, wall=rng.uniform(24.0, 36.0), rows=1 + int(rng.integers(2)))
    angle = rng.uniform(0.0, np.pi)
    bed_h, bed_e = collagen(rng, shape, angle, tone, 0.8)
    inside = step(noise(rng, shape, 20.0) + 0.25 * noise(rng, shape, 5.0) + rng.uniform(0.3, 1.8), -0.1, 0.1)
    slit = step(noise(rng, shape, 7.0) + 0.3 * noise(rng, shape, 2.0), *rng.uniform(0.9, 2.4) + np.array([0.0, 0.3]))
    at = scatter(rng, shape, radius * rng.uniform(2.2, 2.9) * (1.0 - 0.06 * patient.crowd))
    sheet = cells(rng, at, rng.uniform(0.0, np.pi, len(at)))
    sheet = sheet[value_at(inside - 2 * slit, sheet) > 0.5]
    band = spindles(rng, shape, angle, 28.0, tone)
    band = band[value_at(inside, band) < 0.3]
    haematoxylin, eosin = cytoplasm(rng, shape, tone)
    haematoxylin, eosin = haematoxylin * (1 - slit), eosin * (1 - slit)
    return (
        inside * haematoxylin + (1 - inside) * bed_h,
        inside * eosin + (1 - inside) * bed_e,
        np.concatenate([sheet, band]),
    )


def gland(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """Round acini in collagen: one even row of small nuclei at the base of tall cells about a lumen."""
    tone = tone_of(rng, patient)
    radius = rng.uniform(5.2, 6.4) * (1.0 + 0.1 * patient.size)

    def cells(rng: np.random.Generator, at: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return even(rng, at, turn, radius, tone)

    return acini(rng, shape, tone, cells, radius, wall=rng.uniform(20.0, 34.0), rows=1)


def fat(rng: np.random.Generator, shape: Shape, patient: Patient) -> Ground:
    """Large empty vacuoles with walls between, thin or with some collagen in them."""
    tone, spacing = tone_of(rng, patient), rng.uniform(50.0, 95.0)
    at = scatter(rng, shape, spacing, jitter=0.28)
    turn = rng.uniform(0.0, np.pi, len(at))
    reach = rng.uniform(0.5, 0.63) * spacing
    vacuoles = population(rng, at, radius=reach, spread=0.06, aspect=1.15, angle=turn, dark=0.0, lump=0.03)
    depth, second, _ = ovals(shape, vacuoles, noise(rng, shape, 12.0))
    thick = 1.6 + 0.9 * noise(rng, shape, 12.0)
    wall = 1.0 - np.clip((depth - np.maximum(second, 0.0) - thick) / 1.5, 0.0, 1.0)
    haematoxylin, eosin = collagen(rng, shape, rng.uniform(0.0, np.pi), tone, 0.7)
    seeds = spindles(rng, shape, rng.uniform(0.0, np.pi), 22.0, tone)
    return wall * haematoxylin, wall * eosin, seeds[value_at(depth, seeds) < -3.0]


PAINTERS: dict[str, Callable[[np.random.Generator, Shape, Patient], Ground]] = {
    "tumour": tumour, "gland": gland, "stroma": stroma, "necrosis": necrosis, "lymphocytes": lymphocytes, "fat": fat,
}  # fmt: skip
