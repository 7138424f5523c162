"""The door for data: a dataset finds its folder and lists its tiles. Kinds that need no code: `manifest`, `folders`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cards import DatasetCard, anchored
from .errors import CardError, DataError, MissingError

if TYPE_CHECKING:
    import numpy as np

    from .table import Table

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}


class Dataset:
    """A table of tiles made from a folder. Subclasses define `items`; a registry row names the subclass by its `kind`."""

    kind = ""
    card: DatasetCard
    maker: Dataset | None = None  # that the card's `made_by` names; the catalogue sets it

    def __init__(self, card: DatasetCard | str, **fields: Any) -> None:
        self.card = (
            card if isinstance(card, DatasetCard) else DatasetCard(card, **{"kind": self.kind or "class", **fields})
        )

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if "name" in vars(cls):
            raise TypeError(f"{cls.__name__}.name: a dataset's name is its card's. Call this attribute otherwise.")

    @property
    def name(self) -> str:
        return self.card.name

    def locate(self, data: Path) -> Path:
        """The folder that holds this dataset: the card's `root`, else <data>/<name>.

        Raises:
            MissingError: when it is not there; the text shows what was expected and how to get it.
        """
        card, places = self.card, []
        if card.root:
            places = [Path(anchored(card.root, Path(card.base))).expanduser(), data / card.root]
        else:
            places = [data / card.name]
        for place in places:
            if place.exists():
                return place
        raise self.missing(" or ".join(map(str, dict.fromkeys(places))))

    def present(self, data: Path) -> bool:
        """Whether it is there; never makes or fetches anything."""
        try:
            self.locate(data)
        except MissingError:
            return False
        return True

    def make(self, name: str, data: Path) -> Path:
        """The folder of the dataset `name`, whose card says `made_by` this one: made now, unless it is there.

        Raises:
            CardError: this one makes no such dataset.
        """
        raise CardError(f"dataset {name}: {self.name} makes no other dataset. Correct `made_by` on its card.")

    def missing(self, where: str) -> MissingError:
        """The error for absent data: what should be there, and how to get it."""
        card = self.card
        tree = f"\nExpected there:\n{indent(card.tree)}" if card.tree else ""
        how = card.how.strip() or "put the folder there, or say where it is with --data (or `root:` in its card)."
        extra = f"\nRegistration: {card.registration}" if card.registration else ""
        return MissingError(f"Dataset {card.name} is missing: nothing at {where}.{tree}\nHow to get it: {how}{extra}")

    def items(self, root: Path) -> Table:
        """The table of items of the folder `root`, which is only read; where `tiles` is not defined each item is a tile.

        Raises:
            DataError: naming the file, when the folder is not what it should be.
        """
        raise NotImplementedError(f"{type(self).__name__} must define items(root); see docs/write-a-benchmark.md.")

    def tiles(self, root: Path, items: Table) -> Table | None:
        """The tiles of items that are larger than what a model sees (regions, slides); None: each item is a tile.

        The table's column `item` names each tile's item. Tiles are embedded and stored; a benchmark gets one row an item,
        the mean of its tiles' rows. `slides.slide_tiles` makes such a table of slides.
        """
        return None

    def mask(self, root: Path, table: Table, i: int) -> np.ndarray:
        """(H, W) int class numbers of the pixels of tile i, where the table has a column `mask`: a file below `root`.

        Here: a grey or palette image, or .npy, cut to the tile's box as the image is; the card's option `mask_values` maps
        what a file holds to class numbers, as {255: 1}. Loaders of other formats override it.

        Raises:
            DataError: naming the file.
        """
        from .pixels import mask_file, renumbered

        if table.known("mask") is None or not table["mask"][i]:
            raise DataError(
                f"{self.name}: {table['id'][i]} has no mask. Give the table a column `mask`: a file of class numbers a tile."
            )
        x, y, w, h = (int(table[c][i]) if c in table else 0 for c in "xywh")
        values = mask_file(root / str(table["mask"][i]), (x, y, w, h) if w > 0 else None)
        return renumbered(values, self.card.options.get("mask_values") or {}, str(table["mask"][i]))


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.rstrip().splitlines())


def names_below(folder: Path) -> list[str]:
    """The names of the files of one folder, sorted, without what operating systems leave behind."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())


def files_below(folder: Path, suffixes: tuple[str, ...] = IMAGES) -> Iterator[Path]:
    """The files of one folder with one of these endings, sorted."""
    return (folder / n for n in names_below(folder) if n.lower().endswith(suffixes))


def folders_below(folder: Path) -> list[Path]:
    """The sub-folders of one folder, sorted, without hidden ones and __MACOSX."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX")
    return [folder / n for n in names]
