"""The phantom as a dataset: made on first use, then read like any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

import eosin
from eosin.errors import CardError, DataError
from eosin.places import home

from .publish import STAMP, publish


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
        from .make import make

        o = dict(self.card.options)
        return _made(
            data,
            self.name,
            "tiles.csv",
            lambda root: make(root, self._seed(), str(o.get("size", "small")), float(o.get("strength", 1))),
        )

    def make(self, name: str, data: Path) -> Path:
        """Spots (`phantom-hest`), bags (`phantom-bags`) and regions (`phantom-regions`) for the loaders that read them."""
        from .sets import SETS

        if name not in SETS:
            raise CardError(
                f"dataset {name}: {self.name} makes {', '.join(SETS)}, and nothing else. Correct `made_by` on its card."
            )

        def build(root: Path) -> None:
            seed = self._seed()
            publish(root, {"set": name, "seed": seed}, lambda folder: SETS[name](folder, seed))

        return _made(data, name, STAMP, build)

    def _seed(self) -> int:
        return int(self.card.options.get("seed", 0))

    def twin(self, name: str) -> Callable[[Path, int], None] | None:
        """What writes a miniature of the public dataset `name` into a folder, from a seed; None where there is none."""
        from . import twins, twins_eva, twins_eva_slides, twins_prostate, twins_robustness
        from .sets import SETS

        build = {
            "tils": twins.tils, "tp53": twins.tp53, "idc": twins.idc, "bracs": twins.bracs, "breakhis": twins.breakhis,
            "gleason2019": twins_prostate.gleason2019, "gleason-arvaniti": twins_prostate.arvaniti,
            "aggc": twins_prostate.aggc, "chimera": twins_prostate.chimera,
            "bach": twins_eva.bach, "crc": twins_eva.crc, "mhist": twins_eva.mhist, "pcam": twins_eva.pcam,
            "consep": twins_eva.consep, "monusac": twins_eva.monusac, **twins_eva_slides.TWINS,
            "tiger": twins_robustness.tiger, "plism": twins_robustness.plism,
            **SETS,
        }.get(name)  # fmt: skip
        if build is None:
            return None
        return lambda root, seed: publish(
            root, {"set": f"twin of {name}", "seed": seed}, lambda place: build(place, seed)
        )


def _made(data: Path, name: str, sign: str, make: Callable[[Path], None]) -> Path:
    """The folder of a set, made where the file `sign` is not there yet: below `data`, or below EOSIN_HOME."""
    root = data / name
    if not (root / sign).is_file() and not _writable(data):
        root = home() / "data" / name
    if (root / sign).is_file():
        return root
    try:
        make(root)
    except (FileExistsError, ValueError) as error:
        raise DataError(
            f"The phantom cannot be made at {root}: {error}. Correct its card's options, or remove that folder."
        ) from error
    except OSError as error:
        raise DataError(
            f"The phantom cannot be written to {root}: {error.strerror}. Set EOSIN_HOME to a folder with 40 MB of room."
        ) from error
    return root


def _writable(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(there, os.W_OK)
