"""NCT-CRC-HE-100K and CRC-VAL-HE-7K: 224 px patches of colorectal tissue in nine classes."""

from __future__ import annotations

import re
from pathlib import Path

import eosin

from .official import Tree

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
NAME = re.compile(rf"(?P<label>{'|'.join(CLASSES)})-(?P<code>[A-Za-z0-9-]+)\.tif")
PARTS = {"train": ("NCT-CRC-HE-100K", 100_000), "val": ("CRC-VAL-HE-7K", 7_180)}
UNNORMALISED = "NCT-CRC-HE-100K-NONORM"
RECORD = "https://zenodo.org/records/1214456/files"


class Crc(eosin.Dataset):
    """`NCT-CRC-HE-100K/<class>/<class>-<code>.tif` is train, `CRC-VAL-HE-7K/…`, of other patients, is val.

    `NCT-CRC-HE-100K-NONORM`, the same patches before colour normalisation, is never read. No patient is known.
    """

    kind = "crc"

    def downloads(self) -> list[tuple[str, str, str]]:
        md5 = {"train": "035777cf327776a71a05c95da6d6325f", "val": "2fd1651b4f94ebd818ebf90ad2b6ce06"}
        return [(f"{RECORD}/{n}.zip?download=1", f"{n}.zip", f"md5:{md5[split]}") for split, (n, _) in PARTS.items()]

    def items(self, root: Path) -> eosin.Table:
        tree = Tree(self, root)
        places = {split: _place(tree, name) for split, (name, _) in PARTS.items()}
        if not any(places.values()):
            if any(f.name == UNNORMALISED for f in tree.below()):
                raise tree.fail(
                    f"{root} holds {UNNORMALISED} only, which is not the set that is scored. Download NCT-CRC-HE-100K.zip and CRC-VAL-HE-7K.zip."
                )
            tree.find(lambda f: any(_is_part(f, name) for name, _ in PARTS.values()))  # says what is expected
        rows: list[dict[str, object]] = []
        for split, (name, official) in PARTS.items():
            part = [_row(tree, file, split) for file in _files(tree, places[split])]
            tree.compare(len(part), official, f"patches of {name}")
            rows += part
        tree.warnings.append("no patients are known, so only the two folders may be told apart as train and val")
        return tree.table(rows, CLASSES)


def _place(tree: Tree, name: str) -> Path | None:
    return tree.nearest(lambda f: _is_part(f, name))


def _is_part(folder: Path, name: str) -> bool:
    return folder.name == name and any((folder / c).is_dir() for c in CLASSES)


def _files(tree: Tree, place: Path | None) -> list[Path]:
    """The patches of one part."""
    files: list[Path] = []
    for folder in tree.folders(place) if place else []:
        if folder.name not in CLASSES:
            raise tree.fail(f"{folder} is none of {', '.join(CLASSES)}. Give it its official name, or move it away.")
        files += tree.files(folder, (".tif",))
    return files


def _row(tree: Tree, file: Path, split: str) -> dict[str, object]:
    name, folder = NAME.fullmatch(file.name), file.parent.name
    if name is None:
        raise tree.odd(file, f"{folder}-<code>.tif")
    if name["label"] != folder:
        raise tree.disagree(file, f"it lies under {folder}", f"its name says {name['label']}")
    return {"id": file.stem, "source": tree.relative(file), "label": CLASSES.index(folder), "split": split}
