"""MoNuSAC 2020: fields of four organs with the outline and class of every nucleus."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import eosin

from .masks import mark_of
from .official import Tree
from .outlines import read_outlines
from .polygons import covered
from .regions import image_size

NAME = re.compile(r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-[A-Z0-9-]+_[0-9A-Za-z-]+\.(?:tif|xml)")
FORM = "TCGA-<site>-<patient>-…_<number>.tif"
PARTS = {
    "train": ("MoNuSAC_images_and_annotations", "train", 209),
    "test": ("MoNuSAC Testing Data and Annotations", "val", 85),
}
CLASSES = ("Background", "Epithelial", "Lymphocyte", "Neutrophil", "Macrophage", "Ambiguous")
KEPT = 512  # drawn masks in memory: all 294, some 100 MB


class Monusac(eosin.Dataset):
    """`MoNuSAC_images_and_annotations/<slide>/<slide>_<n>.tif` with an .xml of outlines, and the test part's like it.

    Slides (.svs) beside them show the same and are not read. Outlines are drawn in their order, later ones over earlier
    ones; class 5, Ambiguous, is what the test part calls so and every class that is none of the four. As in eva the test
    part chooses the checkpoint and is reported: its split is val.
    """

    kind = "monusac"

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        places = {part: _place(tree, name) for part, (name, _, _) in PARTS.items()}
        if not any(places.values()):
            tree.find(lambda f: any(_is_part(tree, f, name) for name, _, _ in PARTS.values()))  # says what is expected
        rows: list[dict[str, Any]] = []
        strangers: Counter[str] = Counter()
        for part, (name, split, official) in PARTS.items():
            pairs = _pairs(tree, places[part])
            tree.compare(len(pairs), official, f"images of {name}")
            for image, outlines in pairs:
                strangers.update(name for name, _ in read_outlines(outlines) if name not in CLASSES[1:])
                rows.append(_row(tree, image, outlines, split))
        for name, n in strangers.items():
            tree.note(n, f"outlines are called {name!r}, which is no class here, and count as Ambiguous")
        both = {r["group"] for r in rows if r["split"] == "train"} & {r["group"] for r in rows if r["split"] == "val"}
        tree.note(len(both), f"patients are in both parts: {', '.join(sorted(both))}")
        return tree.table(rows, CLASSES)

    def mask(self, root: Path, table: eosin.Table, i: int) -> np.ndarray:
        """(H, W) int64: the classes of the pixels of image i."""
        width, height = image_size(self, root / str(table["source"][i]))
        path = root / str(table["mask"][i])
        return _drawn(path, (height, width), *mark_of(path)).astype(np.int64)


def _plain(name: str) -> str:
    return re.sub(r"[\s_]", "", name.lower())


def _place(tree: Tree, name: str) -> Path | None:
    return tree.nearest(lambda f: _is_part(tree, f, name))


def _is_part(tree: Tree, folder: Path, name: str) -> bool:
    """Whether it has the official name, by and large, and images one level below (archives may nest it in its like)."""
    return _plain(folder.name) == _plain(name) and any(
        tree.files(f, (".tif",)) for f in (folder, *tree.folders(folder))
    )


def _pairs(tree: Tree, place: Path | None) -> list[tuple[Path, Path]]:
    """The images of one part with their outlines, sorted."""
    pairs, orphans = [], []
    for folder in (place, *tree.folders(place)) if place else ():
        images = {f.stem: f for f in tree.files(folder, (".tif",))}
        outlines = {f.stem: f for f in tree.files(folder, (".xml",))}
        lacking = [f for stem, f in images.items() if stem not in outlines]
        if lacking:
            raise tree.fail(f"{lacking[0]} has no {lacking[0].stem}.xml beside it. Unpack the archive again.")
        pairs += [(f, outlines[stem]) for stem, f in images.items()]
        orphans += [f for stem, f in outlines.items() if stem not in images]
    tree.note(
        len(orphans), f"outlines have no .tif and were passed over, such as {''.join(f.name for f in orphans[:1])}"
    )
    return pairs


def _row(tree: Tree, image: Path, outlines: Path, split: str) -> dict[str, Any]:
    name = NAME.fullmatch(image.name)
    if name is None:
        raise tree.odd(image, FORM)
    return {
        "id": image.stem,
        "source": tree.relative(image),
        "mask": tree.relative(outlines),
        "split": split,
        "group": name["patient"],
        "slide": image.stem.rpartition("_")[0],
    }


@lru_cache(KEPT)
def _drawn(path: Path, shape: tuple[int, int], changed: int, size: int) -> np.ndarray:
    """(H, W) uint8. Rows of corners are x, columns y, as eva hands them to scikit-image."""
    mask = np.zeros(shape, np.uint8)
    for name, corners in read_outlines(path):
        x, y = covered(corners, shape[::-1])
        mask[y, x] = CLASSES.index(name) if name in CLASSES[1:] else len(CLASSES) - 1
    return mask
