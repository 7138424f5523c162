"""The phantom as a dataset: made on first use, then read like any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

import eosin
from eosin.errors import DataError
from eosin.places import home


class Phantom(eosin.Manifest):
    """Phantom tiles, generated in seconds into the data folder (or EOSIN_HOME, when that cannot be written)."""

    kind = "phantom"

    def items(self, root: Path) -> eosin.Table:
        """The manifest, its gene counts as log1p: what ridge protocols regress."""
        table = super().items(root)
        if table.target is not None:
            table.target = np.log1p(table.target)
        return table

    def present(self, data: Path) -> bool:
        return any((place / self.name / "tiles.csv").is_file() for place in (data, home() / "data"))

    def locate(self, data: Path) -> Path:
        root = data / self.name
        if (root / "tiles.csv").is_file():
            return root
        if not _writable(data):
            root = home() / "data" / self.name
        if not (root / "tiles.csv").is_file():
            from .make import make

            options = dict(self.card.options)
            try:
                make(
                    root,
                    int(options.get("seed", 0)),
                    str(options.get("size", "small")),
                    float(options.get("strength", 1)),
                )
            except (FileExistsError, ValueError) as error:
                raise DataError(
                    f"The phantom cannot be made at {root}: {error}. Correct its card's options, or remove that folder."
                ) from error
            except OSError as error:
                raise DataError(
                    f"The phantom cannot be written to {root}: {error.strerror}. Set EOSIN_HOME to a folder with 40 MB of room."
                ) from error
        return root

    def twin(self, name: str) -> Callable[[Path, int], None] | None:
        """What writes a miniature of the public dataset `name` into a folder, from a seed; None where there is none."""
        from . import twins, twins_eva, twins_eva_slides, twins_prostate, twins_robustness
        from .publish import publish

        build = {
            "tils": twins.tils, "tp53": twins.tp53, "idc": twins.idc, "bracs": twins.bracs, "breakhis": twins.breakhis,
            "gleason2019": twins_prostate.gleason2019, "aggc": twins_prostate.aggc, "chimera": twins_prostate.chimera,
            "bach": twins_eva.bach, "crc": twins_eva.crc, "mhist": twins_eva.mhist, "pcam": twins_eva.pcam,
            "consep": twins_eva.consep, "monusac": twins_eva.monusac, **twins_eva_slides.TWINS,
            "tiger": twins_robustness.tiger, "plism": twins_robustness.plism,
        }.get(name)  # fmt: skip
        if build is None:
            return None
        return lambda root, seed: publish(
            root, {"set": f"twin of {name}", "seed": seed}, lambda place: build(place, seed)
        )


def _writable(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(there, os.W_OK)
