"""The phantom as a dataset: made on first use, then read like any other."""

from __future__ import annotations

import os
from pathlib import Path

import eosin
from eosin.places import home


class Phantom(eosin.Manifest):
    """Phantom tiles, generated in seconds into the data folder (or EOSIN_HOME, when that cannot be written)."""

    kind = "phantom"

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

            make(root, seed=int(self.card.options.get("seed", 0)))
        return root


def _writable(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(there, os.W_OK)
