"""Six tissues, each painted as two sheets of dye, haematoxylin and eosin, and a table of nuclei.

Colour is made a poor guide on purpose, as it is in life: every piece draws its own tone, tumour and gland share their
cytoplasm and their amount of nuclei, and so do stroma and necrosis. What tells them apart is size, shape, texture,
arrangement.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import parts
from .parts import Patient, Shape, Tissue, tone_of
from .shapes import fibres, noise, ovals, population, scatter, step, within


def tumour(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """Large uneven nuclei with clear centres and nucleoli: in solid nests, or aping glands."""
    tone, grade = tone_of(rng, patient), rng.uniform(0.0, 1.0)  # grade: from all but gland to wild
    radius = (6.2 + 3.4 * grade) * (1.0 + 0.1 * patient.size)
    cells = parts.uneven(rng, radius, tone, grade)
    if rng.uniform() < 0.6 * (1.0 - grade):
        return parts.acini(rng, shape, tone, cells, radius, wall=rng.uniform(24.0, 36.0), rows=int(rng.integers(1, 3)))
    grain = rng.uniform(0.0, np.pi)
    nest = step(noise(rng, shape, 20.0) + 0.25 * noise(rng, shape, 5.0) + rng.uniform(0.3, 1.8), -0.1, 0.1)
    slit = parts.holes(rng, noise(rng, shape, 7.0) + 0.3 * noise(rng, shape, 2.0), 0.9, 2.4, soft=0.3)
    at = scatter(rng, shape, radius * rng.uniform(2.2, 2.9) * (1.0 - 0.06 * patient.crowd))
    sheet = within(cells(at, rng.uniform(0.0, np.pi, len(at))), nest - 2.0 * slit > 0.5)
    between = within(parts.spindles(rng, shape, grain, 28.0, tone), nest < 0.3)
    body = parts.cytoplasm(rng, shape, tone) * (1.0 - slit)
    bed = parts.collagen(rng, shape, grain, tone, contrast=0.8)
    return nest * body + (1.0 - nest) * bed, np.concatenate([sheet, between])


def gland(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """Round acini in collagen: one even row of small nuclei at the base of tall cells about a lumen."""
    tone = tone_of(rng, patient)
    radius = rng.uniform(5.2, 6.4) * (1.0 + 0.1 * patient.size)
    cells = parts.even(rng, radius, tone)
    return parts.acini(rng, shape, tone, cells, radius, wall=rng.uniform(20.0, 34.0), rows=1)


def stroma(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """Collagen in wavy bundles, torn along its grain; spindle nuclei, sometimes a few lymphocytes."""
    tone, grain = tone_of(rng, patient), rng.uniform(0.0, np.pi)
    bed = parts.collagen(rng, shape, grain, tone, contrast=rng.uniform(0.15, 1.1))
    fixed = parts.spindles(rng, shape, grain, rng.uniform(22.0, 42.0) * (1.0 - 0.1 * patient.crowd), tone)
    visitors = parts.thinned(rng, scatter(rng, shape, 24.0, jitter=0.5), rng.uniform(0.0, 0.3))
    return bed, np.concatenate([fixed, parts.small_round(rng, visitors, tone)])


def necrosis(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """Granular debris, sometimes with a memory of fibres; pale swollen ghosts and the dark dust of burst nuclei."""
    tone = tone_of(rng, patient)
    crumbs, clots, pools = noise(rng, shape, 1.2), noise(rng, shape, 4.0), noise(rng, shape, 12.0)
    memory = fibres(rng, shape, rng.uniform(0.0, np.pi), wave=9.0)
    coarse, fine, drawn = rng.uniform((0.03, 0.03, 0.0), 0.1)
    eosin = tone.eosin + coarse * clots + fine * crumbs + drawn * memory + 0.05 * pools
    empty = parts.holes(rng, clots + 0.8 * noise(rng, shape, 2.0), 1.4, 2.6, soft=0.5)
    at = parts.thinned(rng, scatter(rng, shape, rng.uniform(28.0, 44.0)), 0.7)
    ghosts = population(
        rng, at, radius=6.5, spread=0.25, aspect=1.3, angle=0.0, dark=0.42 * tone.dark, clear=0.5, lump=0.18
    )
    at = scatter(rng, shape, rng.uniform(11.0, 17.0), jitter=0.5)
    turn = rng.uniform(0.0, np.pi, len(at))
    dust = population(rng, at, radius=2.8, spread=0.35, aspect=1.6, angle=turn, dark=1.1 * tone.dark, lump=0.2)
    clouds = rng.uniform(size=shape) < step(pools, -0.8, 1.5)
    ground = parts.dyes(tone.haematoxylin + 0.04 * clots, eosin) * (1.0 - empty)
    return ground, np.concatenate([ghosts, within(dust, clouds)])


def lymphocytes(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """A crowd of small round dark nuclei with next to no cytoplasm."""
    tone = tone_of(rng, patient)
    at = scatter(rng, shape, rng.uniform(12.5, 20.0) * (1.0 - 0.06 * patient.crowd), jitter=0.32)
    cells = parts.small_round(rng, parts.thinned(rng, at, rng.uniform(0.7, 0.97)), tone)
    eosin = tone.eosin - 0.08 + 0.05 * noise(rng, shape, 5.0) + 0.06 * noise(rng, shape, 1.2)
    gaps = 0.85 * parts.holes(rng, noise(rng, shape, 3.0), 0.3, 1.6, soft=0.8)
    return parts.dyes(np.full(shape, tone.haematoxylin), eosin) * (1.0 - gaps), cells


def fat(rng: np.random.Generator, shape: Shape, patient: Patient) -> Tissue:
    """Large empty vacuoles with walls between, thin or with some collagen in them."""
    tone, spacing, grain = tone_of(rng, patient), rng.uniform(50.0, 95.0), rng.uniform(0.0, np.pi)
    at = scatter(rng, shape, spacing, jitter=0.28)
    turn = rng.uniform(0.0, np.pi, len(at))
    reach = rng.uniform(0.5, 0.63) * spacing
    vacuoles = population(rng, at, radius=reach, spread=0.06, aspect=1.15, angle=turn, dark=0.0, lump=0.03)
    depth, second, _ = ovals(shape, vacuoles, noise(rng, shape, 12.0))
    thick = 1.6 + 0.9 * noise(rng, shape, 12.0)  # of half a wall, px
    wall = 1.0 - np.clip((depth - np.maximum(second, 0.0) - thick) / 1.5, 0.0, 1.0)
    bed = parts.collagen(rng, shape, grain, tone, contrast=0.7)
    return wall * bed, within(parts.spindles(rng, shape, grain, 22.0, tone), depth < -3.0)


PAINTERS: dict[str, Callable[[np.random.Generator, Shape, Patient], Tissue]] = {
    "tumour": tumour, "gland": gland, "stroma": stroma, "necrosis": necrosis, "lymphocytes": lymphocytes, "fat": fat,
}  # fmt: skip
