"""CoNSeP: 1000 x 1000 px fields of colorectal tissue with the type of every nucleus, cut into boxes of 250 px."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.errors import DataError

from .masks import mark_of
from .official import Tree, options_of
from .regions import image_size

NAME = re.compile(r"(?P<split>train|test)_(?P<number>\d+)\.(?:png|mat)")
PARTS = {"Train": ("train", 27), "Test": ("val", 14)}
CLASSES = ("background", "other", "inflammatory", "epithelial", "spindle-shaped")
MERGED = np.array([0, 1, 2, 3, 3, 4, 4, 4], np.uint8)
"""Healthy and dysplastic epithelium are one class; fibroblast, muscle and endothelium another (Graham et al. 2019)."""
KEPT = 64  # type maps in memory, 1 MB each: all 41


class Consep(eosin.Dataset):
    """`{Train,Test}/Images/<train|test>_<n>.png` and the `type_map` of `Labels/<the same>.mat`; Overlay is not read.

    Each image is cut into whole boxes from the top left, down one column after another; each box is an item. As in eva the
    test part chooses the checkpoint and is reported: its split is val. Options: `patch` px; `types`: raw, the official
    numbers 0 to 7, or merged, the five classes as some copies have them.
    """

    kind = "consep"
    defaults = {"patch": 250, "types": ("raw", "merged")}

    def items(self, root: Path) -> eosin.Table:
        tree, o = Tree(self, root), options_of(self, self.defaults)
        top = tree.nearest(_is_top) or tree.find(_is_top)
        rows, counts, highest = [], {}, 0
        for part, (split, official) in PARTS.items():
            images = _numbered(tree, top / part / "Images", ".png", part)
            labels = _numbered(tree, top / part / "Labels", ".mat", part)
            for number, image in images.items():
                if number not in labels:
                    raise tree.fail(
                        f"{image} has no {top / part / 'Labels' / image.stem}.mat. Unpack the archive again."
                    )
                types = _types(tree, image, labels[number], o["types"])
                highest = max(highest, int(types.max(initial=0)))
                rows += _boxes(tree, image, labels[number], types, split, int(o["patch"]))
            orphans = [f.name for n, f in labels.items() if n not in images]
            tree.note(len(orphans), f"labels have no image and were passed over, such as {''.join(orphans[:1])}")
            tree.compare(len(images), official, f"images of {part}")
            counts[f"images_{part.lower()}"] = len(images)
        if rows and o["types"] == "raw" and highest < len(CLASSES):
            tree.warnings.append(
                f"no type above {highest} in any label, so this may be a copy whose types are merged already: for such a one set options: {{types: merged}}"
            )
        tree.warnings.append(
            "no patients are known; boxes of one image share a `slide`, and the two parts are the only split"
        )
        return tree.table(rows, CLASSES, **counts)

    def mask(self, root: Path, table: eosin.Table, i: int) -> np.ndarray:
        """(h, w) int64: the classes of the pixels of box i."""
        x, y, w, h = (int(table[c][i]) for c in "xywh")
        types = read_types(root / str(table["mask"][i]))[y : y + h, x : x + w]
        return (types if options_of(self, self.defaults)["types"] == "merged" else MERGED[types]).astype(np.int64)


def _is_top(folder: Path) -> bool:
    return any((folder / part / "Images").is_dir() for part in PARTS)


def _numbered(tree: Tree, folder: Path, suffix: str, part: str) -> dict[int, Path]:
    """The files of a folder by their number, in its order: 2 before 10."""
    found: dict[int, Path] = {}
    for file in tree.files(folder, (suffix,)) if folder.is_dir() else []:
        name = NAME.fullmatch(file.name)
        if name is None:
            raise tree.odd(file, f"{part.lower()}_<number>{suffix}")
        if name["split"] != part.lower():
            raise tree.disagree(file, f"it lies under {part}", f"its name says {name['split']}")
        tree.once(found, int(name["number"]), file)
    return dict(sorted(found.items()))


def _types(tree: Tree, image: Path, label: Path, numbers: str) -> np.ndarray:
    """The type of every pixel of an image, checked against its size and the allowed numbers."""
    types = read_types(label)
    width, height = image_size(tree.dataset, image)
    if types.shape != (height, width):
        raise tree.fail(
            f"{label}: type_map is {types.shape[1]} x {types.shape[0]} px and {image} is {width} x {height} px. Unpack both again."
        )
    most = len(MERGED if numbers == "raw" else CLASSES) - 1
    if types.max(initial=0) > most:
        raise tree.fail(
            f"{label}: type_map holds {types.max()}; {numbers} types go from 0 to {most}. Correct the option `types`, or download it again."
        )
    return types


def _boxes(tree: Tree, image: Path, label: Path, types: np.ndarray, split: str, patch: int) -> list[dict[str, Any]]:
    height, width = types.shape
    if min(height, width) < patch:
        raise tree.fail(f"{image} is {width} x {height} px, smaller than a box of {patch} px. Set the option `patch`.")
    about = {"source": tree.relative(image), "mask": tree.relative(label), "slide": image.stem, "split": split}
    return [
        {**about, "id": f"{image.stem}#{x},{y}", "x": x, "y": y, "w": patch, "h": patch}
        for x in range(0, width - patch + 1, patch)
        for y in range(0, height - patch + 1, patch)
    ]


def read_types(path: Path) -> np.ndarray:
    """`type_map` of a .mat file as (height, width) uint8; several boxes share one file, so it is kept for a while.

    Raises:
        DataError: naming the file, when it cannot be read or has no map of whole numbers from 0 to 255.
    """
    return _read_types(path, *mark_of(path))


@lru_cache(KEPT)
def _read_types(path: Path, changed: int, size: int) -> np.ndarray:
    from scipy.io import loadmat

    try:
        types = loadmat(path, variable_names=["type_map"]).get("type_map")
    except Exception as error:  # a damaged file may make the decoder raise anything
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}). Download it again.") from error
    if types is None:
        raise DataError(f"{path} holds no type_map. Download the official labels, which have the types of nuclei.")
    # the official maps are float64
    whole = (
        types.ndim == 2
        and types.dtype.kind in "fiub"
        and bool(((types >= 0) & (types <= 255) & (types % 1 == 0)).all())
    )
    if not whole:
        raise DataError(
            f"{path}: type_map ({types.dtype}, shape {types.shape}) is no map of whole numbers. Download it again."
        )
    types = types.astype(np.uint8)
    types.setflags(write=False)
    return types
