"""Made-up gene counts: what a tile's tissue and its nuclei would express."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .shapes import generator
from .tissue import PAINTERS

GENES = 20
NOISE = 4  # the last so many genes follow nothing


class Expression:
    """The expected counts of one phantom's genes, which follow the tissue and how many nuclei there are."""

    def __init__(self, seed: int) -> None:
        rng = generator(seed, "genes")
        follows = np.arange(GENES) < GENES - NOISE
        self.base = rng.uniform(0.5, 2.5, GENES)  # log counts at twenty nuclei
        self.tissue = {name: follows * rng.uniform(0.1, 0.7, GENES) * rng.standard_normal(GENES) for name in PAINTERS}
        self.nuclei = follows * rng.uniform(-0.3, 0.8, GENES)

    def counts(self, rng: np.random.Generator, weights: Mapping[str, np.ndarray], nuclei: int) -> list[int]:
        """Poisson counts (GENES,) of a tile with so much of each tissue (h, w) and so many nuclei."""
        log = self.base + self.nuclei * np.log((1 + nuclei) / 21)
        for tissue, weight in weights.items():
            log = log + weight.mean() * self.tissue[tissue]
        return [int(count) for count in rng.poisson(np.exp(log))]
