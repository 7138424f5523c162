"""Slides of a dataset cut into tiles at one physical scale."""

from __future__ import annotations

from pathlib import Path

import eosin

DEFAULTS = {"mpp": 0.5, "size": 256}
TILING = dict.fromkeys(("mpp", "size", "stride", "rule", "share", "limit", "seed", "slide_mpp", "coordinates"))


def tiles_of_slides(dataset: eosin.Dataset, root: Path, items: eosin.Table) -> eosin.Table:
    """The tiles of all slides by the card's tiling options, those of `eosin.slides.slide_tiles`.

    `mpp` is .5 by default: the coarsest scan in TCGA, so that no slide needs to be enlarged.
    """
    from eosin.slides import slide_tiles

    given = {k: v for k, v in dataset.card.options.items() if k in TILING}
    return slide_tiles(root, items, {**DEFAULTS, **given})
