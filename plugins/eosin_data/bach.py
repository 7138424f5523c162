"""BACH: 2048 x 1536 px fields of breast tissue in four classes, with the split of EVA."""

from __future__ import annotations

import re
from pathlib import Path

import eosin

from .official import Tree

NAME = re.compile(r"(?P<code>b|is|iv|n)(?P<number>\d{3})\.tif")
CODES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
TRAIN = {
    "Benign": ((1, 41), (60, 60), (91, 100)),
    "InSitu": ((1, 39), (70, 100)),
    "Invasive": ((1, 40), (59, 60), (74, 100)),
    "Normal": ((1, 45), (69, 100)),
}
"""File numbers of the training part, both ends included; no patient is in both (eva: vision/data/datasets/classification/
bach.py, as ranges of the sorted list: 100 x class + number - 1)."""
ARCHIVE = "ICIAR2018_BACH_Challenge"
OFFICIAL, EACH = 400, 100


class Bach(eosin.Dataset):
    """`ICIAR2018_BACH_Challenge/Photos/<class>/<code><number>.tif`; the slides and the challenge's test set are not used.

    The split is told by the file's number, so that a file that is not there moves no other to the other side.
    """

    kind = "bach"

    def downloads(self) -> list[tuple[str, str, str]]:
        return [(f"https://zenodo.org/records/3632035/files/{ARCHIVE}.zip?download=1", f"{ARCHIVE}.zip", "")]

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        photos = tree.nearest(_is_photos, ARCHIVE) or tree.find(_is_photos)
        rows: list[dict[str, object]] = []
        for folder in tree.folders(photos):
            if folder.name not in CODES:
                raise tree.fail(f"{folder} is none of {', '.join(CODES)}. Give it its official name, or move it away.")
            rows += [_row(tree, file) for file in tree.files(folder, (".tif",))]
        tree.compare(len(rows), OFFICIAL, "images")
        tree.warnings.append(
            "2048 x 1536 px fields are shrunk whole to the model's input, to about 2.9 um/px at 224 px"
        )
        return tree.table(rows, tuple(CODES))


def _is_photos(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in CODES)


def _row(tree: Tree, file: Path) -> dict[str, object]:
    name, folder = NAME.fullmatch(file.name), file.parent.name
    if name is None or not 1 <= int(name["number"]) <= EACH:
        raise tree.odd(file, f"{CODES[folder]}001.tif … {CODES[folder]}{EACH}.tif")
    if name["code"] != CODES[folder]:
        says = next(c for c, code in CODES.items() if code == name["code"])
        raise tree.disagree(file, f"it lies under {folder}", f"its name says {says}")
    number = int(name["number"])
    train = any(first <= number <= last for first, last in TRAIN[folder])
    return {
        "id": file.stem,
        "source": tree.relative(file),
        "label": list(CODES).index(folder),
        "split": "train" if train else "val",
    }
